"""How a model starts: the same twice, finite, and of a fusion just what the 3D-only model gives, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ditr.checks.forward_trace import frames_of, in_pairs
from ditr.checks.measure import Measurements
from ditr.checks.model_copies import acting_copy, fresh_model, model_copy
from ditr.checks.subject import Subject
from ditr.checks.tables import IDENTITY, NO_IDENTITY, OUTPUT, START
from ditr.model.esam import EsamSingleView
from ditr.model.output import ModelOutput
from ditr.model.reproducible import reproducible, where_bits_repeat
from ditr.progress import Progress
from ditr.spec.fusion import FusionSpec

PLAIN = FusionSpec()


def measure_start(subject: Subject, *, progress: Progress) -> Iterator[Measurements]:
    """What the untrained model gives, of frames as evaluation reads them.

    Bits are compared where the same sums come in the same order. MinkowskiEngine's on a GPU do not: its models are
    looked at on the CPU then, with two frames.
    """
    starts_plain = at_start(subject)
    found, identity = Measurements(OUTPUT), Measurements(IDENTITY if starts_plain else NO_IDENTITY)
    engine = subject.model.engine
    device = where_bits_repeat(subject.device, engine=engine)
    copies = model_copy(subject), acting_copy(subject), _plain_part(subject)
    model, acting, plain = (one.to(device) for one in copies)
    pairs = in_pairs(len(subject.plain))[: None if subject.device == device else 1]
    names = set(model.state_dict())
    note = "" if starts_plain else "the added parts start random or trained"
    for done, indices in enumerate(pairs):
        progress("start", done, len(pairs))
        batch = subject.batch(subject.plain, indices).to(device)
        with torch.no_grad(), reproducible(device, engine=engine):
            ours, theirs = _numbers(model(batch)), _numbers(plain(batch))
            once, twice = _numbers(acting(batch)), _numbers(acting(batch))
        frames = frames_of(batch)
        found.take("output_not_finite", sum(int((~torch.isfinite(one)).sum()) for one in ours), frames)
        found.take("repeatable", _difference(once, twice), frames)
        identity.take("identity_at_start", _difference(ours, theirs), frames, note=note)
    progress("start", len(pairs), len(pairs))
    for name in sorted(set(model.state_dict()) - names):
        found.take("late_weights", 1, name, note="made by a forward pass")
    yield found
    if subject.spec.fusion.parts:
        yield _start_weights(subject)
        yield identity


def at_start(subject: Subject) -> bool:
    """Whether every added part has the zeros that make it the 3D-only model: not random, and not trained."""
    fusion = subject.spec.fusion
    if not all(part.starts_as_nothing for part in fusion.parts.values()):
        return False
    own, made = subject.model.added_parameters, fresh_model(subject, fusion=fusion).added_parameters
    return own.keys() == made.keys() and all(torch.equal(own[name], made[name]) for name in own)


def _start_weights(subject: Subject) -> Measurements:
    """The arms of a study differ by their fusion alone: the 3D weights that a seed gives are the same in all."""
    found = Measurements(START)
    ours, plain = (fresh_model(subject, fusion=fusion).state_dict() for fusion in (subject.spec.fusion, PLAIN))
    for name in sorted(plain):
        if name not in ours or not torch.equal(ours[name], plain[name]):
            found.take("start_weights_3d", 1, name, note="the 3D-only model starts otherwise")
    for name in sorted(ours.keys() - plain.keys()):
        if name.partition(".")[0] not in subject.spec.fusion.parts:
            found.take("start_weights_elsewhere", 1, name, note="in no added part")
    return found


def _plain_part(subject: Subject) -> EsamSingleView:
    """The 3D-only model with the subject's 3D weights."""
    plain = fresh_model(subject, fusion=PLAIN)
    own = subject.model.state_dict()
    plain.load_state_dict({name: own[name] for name in plain.state_dict()})
    return plain.eval()


def _numbers(output: ModelOutput) -> list[Tensor]:
    found = []
    for sample in output.samples:
        found += [tensor for head in sample.heads for tensor in (head.class_logits, head.masks)]
        found.append(sample.semantic_logits)
    return found


def _difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest; 0 for equal bits only, infinite for other shapes, NaN for what is no number."""
    if [one.shape for one in ours] != [one.shape for one in theirs]:
        return math.inf
    largest_of_each = [(one - other).abs().max() for one, other in zip(ours, theirs, strict=True) if one.numel()]
    return float(torch.stack(largest_of_each).max())
