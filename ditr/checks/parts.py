"""Stage 4: what holds of any part of a fusion, whatever it does: it starts as nothing, acts, and on the right rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ditr.checks.forward_trace import ForwardTrace, trace_pass
from ditr.checks.measure import Measurements
from ditr.checks.model_copies import model_copy
from ditr.checks.part_acts import ACTS, PartAct
from ditr.checks.reference_levels import codes
from ditr.checks.subject import Subject
from ditr.checks.tables import PART
from ditr.data.batch import Batch
from ditr.model.esam import EsamSingleView
from ditr.model.fusion import Act, FusionModule
from ditr.seeds import derive_seed


class PartMeasures:
    """Of every part of the subject's fusion.

    Parameters
    ----------
    acting: a copy of the model whose parts all act.
    at_start: the added weights are those that a fresh model starts with.
    """

    def __init__(self, subject: Subject, *, acting: EsamSingleView, at_start: bool) -> None:
        self._parts = subject.spec.fusion.parts
        self._acting, self._seed = acting, subject.seed
        self._starting = model_copy(subject) if at_start else None
        self._found = {name: Measurements(PART, at=f"part_{name}") for name in self._parts}

    def take(self, trace: ForwardTrace, batch: Batch, *, of: str, gaps: bool) -> None:
        """Of a pass of ``acting`` over a batch; one with gaps shows what happens to rows without a 2D feature alone."""
        for name, found in self._found.items():
            acts = trace.parts.of(name)
            found.take("not_called", _not_called(self._acting.parts[name], trace.parts.called_of(name)), of)
            _take_sum("not_finite", acts, [int((~torch.isfinite(act.after)).sum()) for act in acts], of, into=found)
            if self._parts[name].leaves_missing:
                wrong = [int((act.changed & ~act.has_feature).sum()) for act in acts]
                _take_sum("changed_without_feature", acts, wrong, of, into=found)
        if not gaps:
            self._take_whole(trace, batch, of=of)

    def _take_whole(self, trace: ForwardTrace, batch: Batch, *, of: str) -> None:
        others = _Otherwise(batch, seed=self._seed)
        again = trace_pass(self._acting, others.batch)
        start = None if self._starting is None else trace_pass(self._starting, batch)
        for name, found in self._found.items():
            acts = trace.parts.of(name)
            found.take("acts", strength(acts), of)
            found.take("rows", others.row_error(acts, again.parts.of(name)), of)
            if start is not None and self._parts[name].starts_as_nothing:
                acts = start.parts.of(name)
                changes = [float(act.change.abs().max()) for act in acts]
                _take_sum("starts_as_nothing", acts, changes, of, into=found)

    def all(self) -> Iterator[Measurements]:
        """One table a part, in their order."""
        yield from self._found.values()


def strength(acts: Sequence[PartAct]) -> float:
    """The norm of all that a part changes, relative to the norm of what was there; 0 where it does nothing."""
    if not acts:
        return 0.0
    changed, there = (
        math.sqrt(sum(float(one.square().sum()) for one in values))
        for values in ([act.change for act in acts], [act.before.detach() for act in acts])
    )
    return changed / max(there, 1e-12)


def _take_sum(name: str, acts: Sequence[PartAct], values: Sequence[float], of: str, *, into: Measurements) -> None:
    """Of all places, and which of them are not 0."""
    places = ", ".join(act.where for act, value in zip(acts, values, strict=True) if value != 0)
    into.take(name, sum(values), of, note=f"at {places}, {of}" if places else "")


def _not_called(module: FusionModule, called: set[Act]) -> int:
    """How many of the methods that it overrides the model did not call; a part that overrides none does nothing."""
    own = {act for act in ACTS if module.acts(act)}
    return len(own - called) if own else 1


class _Otherwise:
    """The last sample of a batch with its points in another order, and with other samples before it than there: what is
    done to a point, voxel or superpoint depends on neither."""

    def __init__(self, batch: Batch, *, seed: int) -> None:
        sample = batch.samples[-1]
        generator = torch.Generator().manual_seed(derive_seed(seed, "check", "rows", sample.frame_id))
        self._order = torch.randperm(len(sample.xyz), generator=generator).to(sample.xyz.device)
        moved = {
            name: getattr(sample, name)[self._order] for name in ("xyz", "colour", "superpoints", "uv", "uv_valid")
        }
        if sample.map_hw is None and sample.tokens is not None:
            moved["tokens"] = sample.tokens[:, :, self._order]  # the points' own
        self._was = batch
        self.batch = Batch(samples=(*(batch.samples if len(batch) == 1 else ()), replace(sample, **moved)))

    def row_error(self, acts: Sequence[PartAct], again: Sequence[PartAct]) -> float:
        """Largest difference between what is done to a row here and there, over the largest change at that place."""
        if [(act.act, act.where) for act in acts] != [(act.act, act.where) for act in again]:
            return math.inf
        errors = [0.0]
        for act, other in zip(acts, again, strict=True):
            rows, others = _rows_of_last(act, self._was), _rows_of_last(other, self.batch)
            if act.where == "points":
                rows = rows[self._order]
            if len(rows) != len(others):
                return math.inf
            change, there = act.change[rows], other.change[others]
            if (scale := float(change.abs().max())) != 0:
                errors.append(float((change - there).abs().max()) / scale)
        return math.nan if any(map(math.isnan, errors)) else max(errors)


def _rows_of_last(act: PartAct, batch: Batch) -> Tensor:
    """Of the last sample: its points and superpoints in their order, its voxels in that of their corners."""
    if act.corners is not None:
        corners = act.corners.long().clone()
        rows = (corners[:, 0] == len(batch) - 1).nonzero().squeeze(1)
        corners[:, 0] = 0
        return rows[codes(corners[rows]).argsort()]
    last = batch.samples[-1]
    count = len(last.xyz) if act.where == "points" else last.num_superpoints
    return torch.arange(len(act.before) - count, len(act.before), device=act.before.device)
