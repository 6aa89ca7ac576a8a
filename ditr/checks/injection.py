"""Stage 4: what enters the backbone is base plus projection and nothing else, starts as nothing, and learns.

Frames are read as evaluation reads them and go through the model in pairs; the updates take frames as training reads
them. Everything happens on copies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from ditr.checks.forward_trace import ForwardTrace, pairs_and_gaps, places_of, trace_pass
from ditr.checks.initialisation import at_start, measure_start
from ditr.checks.measure import Measurements
from ditr.checks.model_copies import acting_copy
from ditr.checks.part_acts import PartAct
from ditr.checks.parts import PartMeasures
from ditr.checks.reference_additions import expected_added, levels_of, pooling_of, relative_error
from ditr.checks.reference_levels import ReferenceLevel
from ditr.checks.subject import Subject
from ditr.checks.tables import BIFUSION, ELSEWHERE, PLACE
from ditr.checks.updates import measure_updates
from ditr.model.esam import EsamSingleView
from ditr.model.injector import name_of
from ditr.progress import Progress
from ditr.spec.fusion import FusionSpec
from ditr.spec.fusion_part import BOTTLENECK_STRIDE, DECODER_STRIDES, Branch, Place
from ditr.spec.models import BackboneSpec


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
        width, name = _width(backbone, branch, stride), name_of((branch, stride))
        places[branch, stride] = Measurements(PLACE, at=name, channels_before=width, channels_after=width)
    least_valid = spec.checks.min_valid_ratio
    gate = Measurements(BIFUSION, at="bifusion", channels=backbone.planes[7], zero_rows=1 - least_valid)
    parts = PartMeasures(subject, acting=model, at_start=at_start(subject))
    for batch, of, gaps in pairs_and_gaps(subject, subject.plain, what="injection", progress=progress):
        with torch.no_grad():
            trace = trace_pass(model, batch)
            up_to, pooling = max((stride for _, stride in wanted), default=1), pooling_of(fusion)
            by_hand = levels_of(batch, spec=spec, up_to=up_to, pooling=pooling) if wanted else {}
            others = (one for one in trace.additions if (one.branch, one.stride) not in places)
            elsewhere.take("changed_elsewhere", sum(trace.changed_by_nobody(one) for one in others), of)
            for at, found in places.items():
                _measure_place(model, trace, at, by_hand, fusion=fusion, of=of, gaps=gaps, into=found)
            if not gaps:
                _measure_gate(trace.parts.of("bifusion"), of=of, into=gate)
            parts.take(trace, batch, of=of, gaps=gaps)
    yield from places.values()
    if wanted:
        yield elsewhere
    if fusion.bifusion is not None:
        yield gate
    yield from parts.all()


def _measure_place(
    model: EsamSingleView,
    trace: ForwardTrace,
    at: Place,
    by_hand: dict[int, ReferenceLevel],
    *,
    fusion: FusionSpec,
    of: str,
    gaps: bool,
    into: Measurements,
) -> None:
    addition = trace.at(*at)
    if addition is not None:
        into.take("channels_before", addition.before.features.shape[1], of)
        into.take("channels_after", addition.after.features.shape[1], of)
    if addition is None or not addition.same_shape:
        into.take("added", math.inf, of)
        return
    added = trace.added_by_built_in(addition)
    expected = expected_added(model, addition.branch, addition.stride, by_hand, fusion=fusion)
    rows, here = expected.rows(addition.before.voxels.corners)
    changed = (added != 0).any(dim=1)
    into.take("added", relative_error(added, expected, corners=addition.before.voxels.corners), of)
    into.take("changed_without_feature", int((changed & here & ~expected.mask[rows]).sum()), of)
    if not gaps:
        into.take("zero_rows", 1 - float(changed.float().mean()), of)


def _measure_gate(acts: Sequence[PartAct], *, of: str, into: Measurements) -> None:
    for act in acts:
        into.take("channels", act.after.shape[1], of)
        into.take("zero_rows", 1 - float(act.changed.float().mean()), of)


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
