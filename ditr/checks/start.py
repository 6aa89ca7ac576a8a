"""How a model starts: the same twice, finite, and of a fusion just what the 3D-only model gives, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ditr.checks.outcome import Check, Subject, equal, largest, reported
from ditr.checks.scratch import added_parameters, copied, fresh, shaken
from ditr.checks.seen import frames_of
from ditr.model.output import ModelOutput
from ditr.progress import Progress
from ditr.spec.models import FusionSpec
from ditr.weights.names import ADDED_PARTS

STAGE = 4
PLAIN = FusionSpec()
_SHOWN = 3


def check_start(subject: Subject, *, pairs: Sequence[Sequence[int]], progress: Progress) -> Iterator[Check]:
    """What the untrained model gives, of frames as evaluation reads them.

    Bits are compared on the CPU, where the same sums come in the same order; of a subject on a GPU, for two frames.
    """
    model, acting, plain = copied(subject).cpu(), shaken(subject).cpu(), _plain_part(subject).cpu()
    if subject.device.type != "cpu":
        pairs = pairs[:1]
    names = set(model.state_dict())
    repeated, changed = {}, {}
    not_finite = 0
    for done, indices in enumerate(pairs):
        progress("start", done, len(pairs))
        batch = subject.batch(subject.plain, indices).to(torch.device("cpu"))
        with torch.no_grad():
            found, expected = _numbers(model(batch)), _numbers(plain(batch))
            once, twice = _numbers(acting(batch)), _numbers(acting(batch))
        frames = frames_of(batch)
        repeated[frames], changed[frames] = _difference(once, twice), _difference(found, expected)
        not_finite += sum(int((~torch.isfinite(one)).sum()) for one in found)
    progress("start", len(pairs), len(pairs))
    late = sorted(set(model.state_dict()) - names)
    yield equal(STAGE, "output_not_finite", not_finite, expected=0)
    value, frames = largest(repeated)
    yield equal(STAGE, "repeatable", value, expected=0, detail=frames if value else "")
    yield equal(STAGE, "late_weights", len(late), expected=0, detail=_some(late, "made by a forward pass"))
    if subject.spec.fusion.parts:
        yield from _start_weights(subject)
        yield _identity(subject, changed)


def at_start(subject: Subject) -> bool:
    """Whether every added part has the zeros that make it the 3D-only model: not random, and not trained."""
    fusion = subject.spec.fusion
    if any(part is not None and part.init == "random" for part in (fusion.injection, fusion.stem)):
        return False
    own, made = added_parameters(subject.model), added_parameters(fresh(subject, fusion=fusion))
    return own.keys() == made.keys() and all(torch.equal(own[name], made[name]) for name in own)


def _start_weights(subject: Subject) -> Iterator[Check]:
    """The arms of a study differ by their fusion alone: the 3D weights that a seed gives are the same in all."""
    ours, plain = (fresh(subject, fusion=fusion).state_dict() for fusion in (subject.spec.fusion, PLAIN))
    other = sorted(name for name in plain if name not in ours or not torch.equal(ours[name], plain[name]))
    detail = _some(other, "that the 3D-only model starts otherwise with")
    yield equal(STAGE, "start_weights_3d", len(other), expected=0, detail=detail)
    extra = sorted(name for name in ours if name not in plain and name.partition(".")[0] not in ADDED_PARTS)
    yield equal(STAGE, "start_weights_elsewhere", len(extra), expected=0, detail=_some(extra, "in no added part"))


def _identity(subject: Subject, changed: dict[str, float]) -> Check:
    value, frames = largest(changed)
    if at_start(subject):
        return equal(STAGE, "identity_at_start", value, expected=0, detail=frames if value else "")
    return reported(STAGE, "identity_at_start", value, detail="the added parts start random or trained")


def _plain_part(subject: Subject) -> torch.nn.Module:
    """The 3D-only model with the subject's 3D weights."""
    plain = fresh(subject, fusion=PLAIN)
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


def _some(names: Sequence[str], told: str) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}, {told}" if names else ""
