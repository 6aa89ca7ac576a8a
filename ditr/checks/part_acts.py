"""What each part of a fusion did in a forward pass, and where: recorded by the way, the model stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from ditr.model.esam import EsamSingleView
from ditr.model.fusion import Act, Additions, BatchFeatures, FusionModule
from ditr.model.injector import name_of
from ditr.model.segments import Segments
from ditr.spec.fusion_part import Place

ACTS: tuple[Act, ...] = ("add_to_voxels", "fuse_voxels", "fuse_points", "fuse_superpoints")


@dataclass(frozen=True, kw_only=True)
class PartAct:
    """One part at one place: R points, superpoints, or voxels of a stride."""

    part: str
    act: Act
    where: str
    """``points``, ``superpoints`` or the name of a place in the backbone."""
    before: Tensor
    """(R, C)"""
    after: Tensor
    """(R, C)"""
    has_feature: Tensor
    """(R,) bool: there is a 2D feature."""
    corners: Tensor | None
    """(R, 4) of voxels."""
    again: Callable[[BatchFeatures], Tensor]
    """(R, C) the same with the 2D features of another batch of as many points, the 3D ones being as they were."""

    @property
    def change(self) -> Tensor:
        """(R, C)"""
        return self.after.detach() - self.before.detach()

    @property
    def changed(self) -> Tensor:
        """(R,) bool"""
        return (self.after != self.before).any(dim=1)


@dataclass(kw_only=True)
class PartActs:
    """Of one forward pass."""

    called: set[tuple[str, Act]] = field(default_factory=set)
    """Part and method."""
    acts: list[PartAct] = field(default_factory=list)
    """In the order of the pass; what is added to voxels comes where the backbone asks for it."""
    features: BatchFeatures | None = None
    """What the parts were given."""
    added: list[tuple[str, Callable[[BatchFeatures], Additions], Additions]] = field(default_factory=list)
    """Part, its method, and what that gave to be added to voxels."""

    def of(self, part: str) -> list[PartAct]:
        """Those of one part."""
        return [act for act in self.acts if act.part == part]

    def called_of(self, part: str) -> set[Act]:
        """Its methods that were called."""
        return {act for name, act in self.called if name == part}

    def added_at(self, place: Place, before: Tensor) -> None:
        """The backbone has come to the place, where it has ``before``."""
        for part, add, additions in self.added:
            if place not in additions or additions[place].shape != before.shape:
                continue

            def again(features: BatchFeatures, add: Callable[[BatchFeatures], Additions] = add) -> Tensor:
                return before + add(features)[place].to(before.dtype)

            after = before + additions[place].to(before.dtype)
            self.note(part, "add_to_voxels", before, after, place=place, again=again)

    def note(
        self,
        part: str,
        act: Act,
        before: Tensor,
        after: Tensor,
        *,
        again: Callable[[BatchFeatures], Tensor],
        place: Place | None = None,
        superpoints: Segments | None = None,
    ) -> None:
        """An act of the part."""
        features = self.features
        assert features is not None, "a part is given the features"
        has_feature, corners, where = features.points.valid, None, "points"
        if place is not None:
            coverage = features.voxels.coverage(place[1])
            has_feature, corners, where = coverage.mask, coverage.voxels.corners, name_of(place)
        elif superpoints is not None:
            has_feature, where = superpoints.sum(has_feature.float().unsqueeze(1)).squeeze(1) > 0, "superpoints"
        self.acts.append(
            PartAct(
                part=part,
                act=act,
                where=where,
                before=before,
                after=after,
                has_feature=has_feature,
                corners=corners,
                again=again,
            )
        )


@contextmanager
def recording(model: EsamSingleView) -> Iterator[PartActs]:
    """While entered, the parts' methods leave what they did."""
    found = PartActs()
    for name, module in model.parts.items():
        _spy(found, name, module)
    try:
        yield found
    finally:
        for module in model.parts.values():
            for act in ACTS:
                module.__dict__.pop(act, None)


def _spy(found: PartActs, part: str, module: FusionModule) -> None:
    """Methods of its own for this one module, which call those of its class."""
    add, voxels, points, superpoints = (getattr(module, act) for act in ACTS)

    def called(act: Act, features: BatchFeatures) -> None:
        found.called.add((part, act))
        found.features = features

    def add_to_voxels(features: BatchFeatures) -> Additions:
        given: Additions = add(features)
        called("add_to_voxels", features)
        found.added.append((part, add, given))
        return given

    def fuse_voxels(x: Tensor, place: Place, features: BatchFeatures) -> Tensor:
        after: Tensor = voxels(x, place, features)
        called("fuse_voxels", features)
        if after is not x:
            found.note(part, "fuse_voxels", x, after, place=place, again=lambda other: voxels(x, place, other))
        return after

    def fuse_points(x: Tensor, features: BatchFeatures) -> Tensor:
        after: Tensor = points(x, features)
        called("fuse_points", features)
        found.note(part, "fuse_points", x, after, again=lambda other: points(x, other))
        return after

    def fuse_superpoints(x: Tensor, of_points: Segments, features: BatchFeatures) -> Tensor:
        after: Tensor = superpoints(x, of_points, features)
        called("fuse_superpoints", features)
        found.note(
            part,
            "fuse_superpoints",
            x,
            after,
            superpoints=of_points,
            again=lambda other: superpoints(x, of_points, other),
        )
        return after

    spies = dict(zip(ACTS, (add_to_voxels, fuse_voxels, fuse_points, fuse_superpoints), strict=True))
    for act, spy in spies.items():
        if module.acts(act):
            module.__dict__[act] = spy
