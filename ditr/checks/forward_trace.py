"""One forward pass from inside the backbone: every place where 2D features can enter, before and after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ditr.checks.part_acts import PartAct, PartActs, recording
from ditr.checks.subject import Subject
from ditr.data.batch import Batch
from ditr.data.samples import SampleSet
from ditr.model.esam import EsamSingleView
from ditr.model.injector import Adder, Injector, name_of
from ditr.model.output import ModelOutput
from ditr.model.sparse import SparseTensor
from ditr.progress import Progress
from ditr.spec.fusion import FusionSpec
from ditr.spec.fusion_part import BOTTLENECK_STRIDE, Branch


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What was added at a place where the backbone asked for 2D features."""

    branch: Branch
    stride: int
    before: SparseTensor
    after: SparseTensor
    error: str = ""
    """Why the model refused to add anything: a bug of its own that it noticed."""

    @property
    def same_shape(self) -> bool:
        return self.before.features.shape == self.after.features.shape

    @property
    def added(self) -> Tensor:
        """(V, width), of the same shape before and after."""
        return self.after.features - self.before.features


@dataclass(kw_only=True)
class ForwardTrace:
    """What one forward pass did."""

    injector: Injector | None = None
    """Of what the model gave its backbone; None if it gave nothing, or something else."""
    additions: list[Addition] = field(default_factory=list)
    """In the order of the forward pass; none if the backbone was given nothing."""
    parts: PartActs = field(default_factory=PartActs)
    """What each part of the fusion did."""
    output: ModelOutput | None = None

    def tensor(self, stride: int) -> SparseTensor | None:
        """The backbone's own of this stride."""
        return next((one.before for one in self.additions if one.stride == stride), None)

    def added_by_built_in(self, addition: Addition) -> Tensor:
        """(V, width) all that was added; where parts act that are not built in, what the built-in ones gave."""
        acts = self._acts_at(addition)
        if all(act.part in _BUILT_IN for act in acts):
            return addition.added
        return sum((act.change for act in acts if act.part in _BUILT_IN), torch.zeros_like(addition.before.features))

    def changed_by_nobody(self, addition: Addition) -> bool:
        """Whether something changed where no part of the fusion, that is not built in, acts."""
        same = torch.equal(addition.before.features, addition.after.features)
        return not same and all(act.part in _BUILT_IN for act in self._acts_at(addition))

    def _acts_at(self, addition: Addition) -> list[PartAct]:
        where = name_of((addition.branch, addition.stride))
        return [act for act in self.parts.acts if act.where == where]

    def at(self, branch: Branch, stride: int) -> Addition | None:
        """None if the pass did not come there."""
        found = (one for one in self.additions if (one.branch, one.stride) == (branch, stride))
        return next(found, None)


_BUILT_IN = ("injection", "stem")
"""Parts that add to voxels, and whose places the spec says."""


def places_of(fusion: FusionSpec) -> tuple[tuple[Branch, int], ...]:
    """Where the spec wants 2D features to enter the backbone, in the order of the forward pass."""
    wanted: list[tuple[Branch, int]] = [("stem", 1)] if fusion.stem is not None else []
    if fusion.injection is not None:
        for stride in sorted(fusion.injection.scales, reverse=True):
            wanted.append(("bottleneck" if stride == BOTTLENECK_STRIDE else fusion.injection.target, stride))
    return tuple(wanted)


def strides_of(fusion: FusionSpec) -> tuple[int, ...]:
    """From 1 to the coarsest that the fusion adds to; levels between are pooled through."""
    coarsest = max(stride for _, stride in places_of(fusion))
    return tuple(2**exponent for exponent in range(coarsest.bit_length()))


def trace_pass(model: EsamSingleView, batch: Batch) -> ForwardTrace:
    """A forward pass of the model as it is, in the mode it is in."""
    with tracing(model) as trace:
        trace.output = model(batch)
    return trace


@contextmanager
def tracing(model: EsamSingleView) -> Iterator[ForwardTrace]:
    """While entered, the model's forward pass leaves what it did; nothing of the model is replaced."""
    trace = ForwardTrace()

    def wrap(_: nn.Module, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        given = named.get("inject")
        trace.injector = given.injector if isinstance(given, Adder) else None

        def spy(branch: Branch, stride: int, before: SparseTensor) -> SparseTensor:
            after, why = before, ""
            trace.parts.added_at((branch, stride), before.features)
            try:
                after = before if given is None else given(branch, stride, before)
            except AssertionError as error:  # the rest of the pass says more than its end here would
                why = str(error)
            trace.additions.append(Addition(branch=branch, stride=stride, before=before, after=after, error=why))
            return after

        return arguments, named | {"inject": spy}

    handle = model.backbone.register_forward_pre_hook(wrap, with_kwargs=True)
    try:
        with recording(model) as trace.parts:
            yield trace
    finally:
        handle.remove()


def relative_norm(before: Tensor, after: Tensor) -> float:
    """Of what was added to what was there."""
    before, after = before.detach(), after.detach()
    return float((after - before).norm() / before.norm().clamp(min=1e-12))


def pairs_and_gaps(
    subject: Subject, samples: SampleSet, *, what: str, progress: Progress
) -> Iterator[tuple[Batch, str, bool]]:
    """Every two samples as they are, and once more with gaps; what they are called, and whether there are gaps."""
    pairs = in_pairs(len(samples))
    for done, indices in enumerate(pairs):
        progress(what, done, len(pairs))
        whole = subject.batch(samples, indices)
        yield whole, frames_of(whole), False
        yield with_gaps(whole), f"{frames_of(whole)}, with gaps made", True
    progress(what, len(pairs), len(pairs))


def with_gaps(batch: Batch) -> Batch:
    """Half of each frame without any 2D feature, and every third point of the other half: no voxel is like the next.

    Where all points of a data set have features, nothing else shows what happens to those that have none.
    """
    samples = []
    for sample in batch:
        along = sample.xyz[:, 0]
        third = torch.arange(len(along), device=along.device) % 3 == 0
        valid = sample.uv_valid & (along > along.median()) & ~third
        samples.append(replace(sample, uv_valid=valid))
    return Batch(samples=tuple(samples))


def in_pairs(count: int) -> Sequence[Sequence[int]]:
    """Indices of samples two by two, so that what belongs to one could be given to the other; the last may be alone."""
    return [tuple(range(first, min(first + 2, count))) for first in range(0, count, 2)]


def frames_of(batch: Batch) -> str:
    """Their ids, to be said with what was found."""
    return " and ".join(sample.frame_id for sample in batch)
