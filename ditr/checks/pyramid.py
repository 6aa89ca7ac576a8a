"""Stage 3: the levels that 2D features are pooled to lie on the backbone's own voxels and hold what they should.

Frames are read as training reads them and go through the model in pairs. Every level is held against one that is made
by nothing but grouping (see ``reference_levels``), on a copy of the model whose added parts all act.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from ditr.checks.forward_trace import name_of, pairs_and_gaps, places_of, strides_of, trace_pass
from ditr.checks.measure import Measurements
from ditr.checks.model_copies import acting_copy
from ditr.checks.reference_additions import expected_added, levels_of, relative_error, right_in_another_order
from ditr.checks.reference_levels import ReferenceLevel
from ditr.checks.subject import Subject
from ditr.checks.tables import INJECTOR, LEVEL, PROJECTED
from ditr.model.injection import Injector
from ditr.model.sparse import SparseTensor
from ditr.progress import Progress


def measure_pyramid(subject: Subject, *, progress: Progress) -> Iterator[Measurements]:
    """Nothing is checked of a spec that brings no 2D features into the backbone."""
    fusion = subject.spec.fusion
    if not places_of(fusion):
        return
    model, injector, channels = acting_copy(subject), Measurements(INJECTOR), subject.model.feature_channels or 0
    levels = {
        stride: Measurements(LEVEL, at=f"s{stride}", stride=f"a tensor stride of {stride}", voxels=0, channels=channels)
        for stride in strides_of(fusion)
    }
    projected = {place: Measurements(PROJECTED, at=name_of(*place)) for place in places_of(fusion)}
    for batch, of, gaps in pairs_and_gaps(subject, subject.augmented, what="pyramid", progress=progress):
        with torch.no_grad():
            trace = trace_pass(model, batch)
            by_hand = levels_of(batch, spec=subject.spec)
            injector.take("injector", trace.injector is not None, of)
            for stride, found in levels.items():
                tensor = trace.tensor(stride)
                if trace.injector is not None and tensor is not None:
                    level = _Level(trace.injector, tensor, by_hand[stride], stride=stride, of=of)
                    level.features(limit=subject.spec.checks.max_level_error, into=found)
                    if not gaps:  # which tell nothing about where voxels are
                        level.voxels(into=found)
            for (branch, stride), found in projected.items():
                addition = trace.at(branch, stride)
                if addition is None:
                    found.take("projected", math.inf, of)
                    continue
                expected = expected_added(model, branch, stride, by_hand, fusion=fusion)
                error = relative_error(addition.added, expected, corners=addition.before.voxels.corners)
                found.take("projected", error, of, note=addition.error)
    yield injector
    yield from levels.values()
    yield from projected.values()


class _Level:
    """One level ``of`` a batch, beside the backbone's tensor of its stride and beside the one made by hand."""

    def __init__(
        self, injector: Injector, tensor: SparseTensor, by_hand: ReferenceLevel, *, stride: int, of: str
    ) -> None:
        self._injector, self._tensor, self._by_hand, self._stride, self._of = injector, tensor, by_hand, stride, of
        self._rows, self._here = by_hand.rows(tensor.voxels.corners)

    def voxels(self, *, into: Measurements) -> None:
        """Where the level's features lie."""
        voxels, tensor, of = self._injector.voxels(self._stride), self._tensor, self._of
        corners, by_hand = tensor.voxels.corners, len(self._by_hand.codes)
        into.take("same_voxels", voxels is tensor.voxels, of)
        on_grid = not bool((corners[:, 1:] % self._stride).any())
        into.take("stride", voxels.stride == self._stride and on_grid, of)
        same_size = len(voxels) == len(corners)
        other_rows = int((voxels.corners != corners).any(dim=1).sum()) if same_size else len(corners)
        into.take("rows", other_rows, of)
        into.take("channels", self._injector.features(self._stride).shape[1], of)
        into.take("empty_voxels", 1 - float(self._injector.mask(self._stride).float().mean()), of)
        into.take("voxels", len(corners), of)
        into.limits["voxels"] += by_hand
        foreign = int((~self._here).sum()) + abs(len(corners) - by_hand)
        if foreign:
            into.fail("voxels", f"{foreign} that only one side has, {of}")

    def features(self, *, limit: float, into: Measurements) -> None:
        """What the level says; ``limit`` of its error, from which on it is asked what is wrong."""
        features, mask, of = self._injector.features(self._stride), self._injector.mask(self._stride), self._of
        aligned = bool(self._here.all()) and len(self._rows) == len(mask)
        into.take("mask", int((mask != self._by_hand.mask[self._rows]).sum()) if aligned else len(mask), of)
        into.take("not_finite", int((~torch.isfinite(features)).sum()), of)
        error = relative_error(features, self._by_hand, corners=self._tensor.voxels.corners)
        mixed = error > limit and right_in_another_order(features, self._by_hand)
        into.take("values", error, of, note="the right values in wrong rows" if mixed else "")
