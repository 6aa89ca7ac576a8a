"""Stage 4: what enters the backbone is base plus projection and nothing else, starts as nothing, and learns.

Frames are read as evaluation reads them and go through the model in pairs; the updates take frames as training reads
them. Everything happens on copies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from ditr.checks.forward_trace import Addition, GateCall, name_of, pairs_and_gaps, places_of, trace_pass
from ditr.checks.initialisation import measure_start
from ditr.checks.measure import Measurements
from ditr.checks.model_copies import acting_copy
from ditr.checks.reference_additions import expected_added, levels_of, relative_error
from ditr.checks.reference_levels import ReferenceLevel
from ditr.checks.subject import Subject
from ditr.checks.tables import BIFUSION, ELSEWHERE, PLACE
from ditr.checks.updates import measure_updates
from ditr.model.esam import EsamSingleView
from ditr.model.res16unet import Branch
from ditr.progress import Progress
from ditr.spec.models import BOTTLENECK_STRIDE, DECODER_STRIDES, BackboneSpec, FusionSpec


def measure_injection(subject: Subject, *, progress: Progress) -> Iterator[Measurements]:
    """A spec without fusion is looked at for what any model has to be: the same twice, and finite."""
    yield from measure_start(subject, progress=progress)
    if not subject.spec.fusion.parts:
        return
    yield from _measure_passes(subject, progress=progress)
    yield from measure_updates(subject, progress=progress)


def _measure_passes(subject: Subject, *, progress: Progress) -> Iterator[Measurements]:
    """Batches as they are for what is added, and with gaps for what must not be."""
    spec, fusion, backbone, model = subject.spec, subject.spec.fusion, subject.spec.model.backbone, acting_copy(subject)
    wanted, elsewhere = places_of(fusion), Measurements(ELSEWHERE)
    places = {}
    for branch, stride in wanted:
        width, name = _width(backbone, branch, stride), name_of(branch, stride)
        places[branch, stride] = Measurements(PLACE, at=name, channels_before=width, channels_after=width)
    least_valid = spec.checks.min_valid_ratio
    gate = Measurements(BIFUSION, at="bifusion", channels=backbone.planes[7], zero_rows=1 - least_valid)
    for batch, of, gaps in pairs_and_gaps(subject, subject.plain, what="injection", progress=progress):
        with torch.no_grad():
            trace = trace_pass(model, batch)
            by_hand = levels_of(batch, spec=spec) if wanted else {}
            others = (one for one in trace.additions if (one.branch, one.stride) not in places)
            elsewhere.take(
                "changed_elsewhere", sum(not torch.equal(one.before.features, one.after.features) for one in others), of
            )
            for at, found in places.items():
                _measure_place(model, trace.at(*at), by_hand, fusion=fusion, of=of, gaps=gaps, into=found)
            _measure_gate(trace.gate, of=of, gaps=gaps, into=gate)
    yield from places.values()
    if wanted:
        yield elsewhere
    if fusion.bifusion is not None:
        yield gate


def _measure_place(
    model: EsamSingleView,
    addition: Addition | None,
    by_hand: dict[int, ReferenceLevel],
    *,
    fusion: FusionSpec,
    of: str,
    gaps: bool,
    into: Measurements,
) -> None:
    if addition is not None:
        into.take("channels_before", addition.before.features.shape[1], of)
        into.take("channels_after", addition.after.features.shape[1], of)
    if addition is None or not addition.same_shape:
        into.take("added", math.inf, of)
        return
    expected = expected_added(model, addition.branch, addition.stride, by_hand, fusion=fusion)
    rows, here = expected.rows(addition.before.voxels.corners)
    changed = (addition.added != 0).any(dim=1)
    into.take("added", relative_error(addition.added, expected, corners=addition.before.voxels.corners), of)
    into.take("changed_without_feature", int((changed & here & ~expected.mask[rows]).sum()), of)
    if not gaps:
        into.take("zero_rows", 1 - float(changed.float().mean()), of)


def _measure_gate(gate: GateCall | None, *, of: str, gaps: bool, into: Measurements) -> None:
    if gate is None or gate.before.shape != gate.after.shape:
        into.take("not_called", 1, of)
        return
    changed = (gate.after != gate.before).any(dim=1)
    into.take("not_called", 0, of)
    into.take("channels", gate.after.shape[1], of)
    into.take("changed_without_feature", int((changed & ~gate.valid).sum()), of)
    if not gaps:
        into.take("zero_rows", 1 - float(changed.float().mean()), of)


def _width(backbone: BackboneSpec, branch: Branch, stride: int) -> int:
    """Channels of the branch, from the numbers of the spec (docs/reference/esam.md, Places of injection)."""
    if branch == "stem":
        return backbone.stem_channels
    if stride == BOTTLENECK_STRIDE:
        return backbone.planes[3]
    stage = DECODER_STRIDES.index(stride)
    if branch == "up":
        return backbone.planes[4 + stage]
    return (*reversed(backbone.planes[:3]), backbone.stem_channels)[stage]
