"""Stage 3: the levels that 2D features are pooled to lie on the backbone's own voxels and hold what they should.

Frames are read as training reads them and go through the model in pairs. Every level that a part reads is held against
one that is made by nothing but grouping (see ``reference_levels``), on a copy of the model whose parts all act.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch

from ditr.checks.forward_trace import ForwardTrace, in_pairs, pairs_and_gaps, places_of, strides_of, trace_pass
from ditr.checks.measure import Measurements
from ditr.checks.model_copies import acting_copy
from ditr.checks.reference_additions import (
    expected_added,
    levels_of,
    pooling_of,
    relative_error,
    right_in_another_order,
)
from ditr.checks.reference_levels import ReferenceLevel
from ditr.checks.subject import Subject
from ditr.checks.tables import INJECTOR, LEVEL, PROJECTED
from ditr.model.esam import EsamSingleView
from ditr.model.injector import name_of
from ditr.model.sparse import SparseTensor
from ditr.model.voxel_features import Pooling, VoxelFeatures
from ditr.progress import Progress
from ditr.spec.fusion_part import Place

_ByHand = Mapping[Pooling, Mapping[int, ReferenceLevel]]


def measure_pyramid(subject: Subject, *, progress: Progress) -> Iterator[Measurements]:
    """Nothing is checked of a spec that brings no 2D features into the backbone."""
    if not any(part.acts("add_to_voxels") or part.acts("fuse_voxels") for part in subject.model.parts.values()):
        return
    fusion, model = subject.spec.fusion, acting_copy(subject)
    channels, injector = subject.model.feature_channels or 0, Measurements(INJECTOR)
    read = _levels(subject, model)
    coarsest, poolings = max(read, default=1), {pooling_of(fusion)}.union(*read.values())
    levels = {
        stride: Measurements(LEVEL, at=f"s{stride}", stride=f"a tensor stride of {stride}", voxels=0, channels=channels)
        for stride in read
    }
    projected = {place: Measurements(PROJECTED, at=name_of(place)) for place in places_of(fusion)}
    for batch, of, gaps in pairs_and_gaps(subject, subject.augmented, what="pyramid", progress=progress):
        with torch.no_grad():
            trace = trace_pass(model, batch)
            by_hand: _ByHand = {
                pooling: levels_of(batch, spec=subject.spec, up_to=coarsest, pooling=pooling) for pooling in poolings
            }
            injector.take("injector", trace.injector is not None, of)
            for stride, found in levels.items():
                tensor = trace.tensor(stride)
                if trace.injector is None or tensor is None:
                    continue
                for pooling in read[stride]:
                    features = trace.injector.features.voxels
                    level = _Level(features, tensor, by_hand[pooling][stride], stride=stride, pooling=pooling, of=of)
                    level.features(limit=subject.spec.checks.max_level_error, into=found)
                if not gaps:  # which tell nothing about where voxels are
                    level.voxels(into=found)
            for place, found in projected.items():
                _measure_projected(model, trace, place, by_hand[pooling_of(fusion)], subject=subject, of=of, into=found)
    yield injector
    yield from levels.values()
    yield from projected.values()


def _levels(subject: Subject, model: EsamSingleView) -> dict[int, list[Pooling]]:
    """Stride -> how it is pooled: what the spec says of built-in parts, and what others ask for in a pass."""
    fusion = subject.spec.fusion
    read: dict[int, set[Pooling]] = {}
    if places_of(fusion):
        read = {stride: {pooling_of(fusion)} for stride in strides_of(fusion)}
    if fusion.own_parts:
        with torch.no_grad():
            trace = trace_pass(model, subject.batch(subject.augmented, in_pairs(len(subject.augmented))[0]))
        for stride, pooling in () if trace.parts.features is None else trace.parts.features.voxels.levels:
            if stride > 1 or not read.get(1):  # where there is nothing to pool
                read.setdefault(stride, set()).add(pooling)
    return {stride: sorted(read[stride]) for stride in sorted(read)}


def _measure_projected(
    model: EsamSingleView,
    trace: ForwardTrace,
    place: Place,
    by_hand: Mapping[int, ReferenceLevel],
    *,
    subject: Subject,
    of: str,
    into: Measurements,
) -> None:
    addition = trace.at(*place)
    if addition is None:
        into.take("projected", math.inf, of)
        return
    expected = expected_added(model, *place, by_hand, fusion=subject.spec.fusion)
    added = trace.added_by_built_in(addition)
    error = relative_error(added, expected, corners=addition.before.voxels.corners)
    into.take("projected", error, of, note=addition.error)


class _Level:
    """One level ``of`` a batch, beside the backbone's tensor of its stride and beside the one made by hand."""

    def __init__(
        self,
        features: VoxelFeatures,
        tensor: SparseTensor,
        by_hand: ReferenceLevel,
        *,
        stride: int,
        pooling: Pooling,
        of: str,
    ) -> None:
        self._features, self._tensor, self._by_hand, self._stride, self._of = features, tensor, by_hand, stride, of
        self._pooled = features.pooled(stride, pooling=pooling)
        self._rows, self._here = by_hand.rows(tensor.voxels.corners)

    def voxels(self, *, into: Measurements) -> None:
        """Where the level's features lie."""
        voxels, tensor, of = self._features.voxels(self._stride), self._tensor, self._of
        corners, by_hand = tensor.voxels.corners, len(self._by_hand.codes)
        into.take("same_voxels", voxels is tensor.voxels, of)
        on_grid = not bool((corners[:, 1:] % self._stride).any())
        into.take("stride", voxels.stride == self._stride and on_grid, of)
        same_size = len(voxels) == len(corners)
        other_rows = int((voxels.corners != corners).any(dim=1).sum()) if same_size else len(corners)
        into.take("rows", other_rows, of)
        into.take("channels", self._pooled.shape[1], of)
        into.take("empty_voxels", 1 - float(self._features.mask(self._stride).float().mean()), of)
        into.take("voxels", len(corners), of)
        into.limits["voxels"] += by_hand
        foreign = int((~self._here).sum()) + abs(len(corners) - by_hand)
        if foreign:
            into.fail("voxels", f"{foreign} that only one side has, {of}")

    def features(self, *, limit: float, into: Measurements) -> None:
        """What the level says; ``limit`` of its error, from which on it is asked what is wrong."""
        features, mask, of = self._pooled, self._features.mask(self._stride), self._of
        aligned = bool(self._here.all()) and len(self._rows) == len(mask)
        into.take("mask", int((mask != self._by_hand.mask[self._rows]).sum()) if aligned else len(mask), of)
        into.take("not_finite", int((~torch.isfinite(features)).sum()), of)
        error = relative_error(features, self._by_hand, corners=self._tensor.voxels.corners)
        mixed = error > limit and right_in_another_order(features, self._by_hand)
        into.take("values", error, of, note="the right values in wrong rows" if mixed else "")
