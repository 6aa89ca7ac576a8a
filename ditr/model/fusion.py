"""What a part of a fusion does in the model: four methods, of which a part overrides those where it acts.

A part may act on points and superpoints after the backbone and on voxels inside it. Whatever it does not override
leaves what is there as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from ditr.errors import Code, DitrError
from ditr.model.padding import Padding
from ditr.model.point_features import PointFeatures
from ditr.model.segments import Segments
from ditr.model.sparse import Voxels
from ditr.model.voxel_features import VoxelFeatures
from ditr.plugins import failure
from ditr.ranks import ALONE, Ranks
from ditr.seeds import derive_seed
from ditr.spec.fusion_part import Place

Additions = Mapping[Place, Tensor]
"""By place in the backbone: (V, width) on its voxels of that stride, in the order of their rows."""
Act = Literal["add_to_voxels", "fuse_voxels", "fuse_points", "fuse_superpoints"]
"""The methods, in the order in which a forward pass comes to them."""


@dataclass(frozen=True, kw_only=True)
class BatchFeatures:
    """The 2D features of a batch as the parts of a fusion see them; not to be kept beyond it."""

    points: PointFeatures
    """What each of the N points reads of the maps' tokens, and which points read anything."""
    in_space: Voxels
    """The batch's voxels."""
    statistics: dict[str, Tensor] = field(default_factory=dict)
    """To be logged; a part may put numbers in: () each in training, in evaluation () or (B,), one a sample."""
    losses: dict[str, Tensor] = field(default_factory=dict)
    """To be added to the loss of training; a part may put () numbers in, of the whole batch: see ``total``."""
    seeds: tuple[int, ...] = ()
    """Of each sample in this epoch, for what is drawn in training."""
    ranks: Ranks = ALONE
    """Who computes the rest of the batch; all that is here is of this rank's samples. In evaluation, nobody."""

    @cached_property
    def voxels(self) -> VoxelFeatures:
        """The features pooled to voxels of any stride: the backbone's own, in the order of their rows."""
        return VoxelFeatures(self.points, self.in_space)

    @cached_property
    def draws(self) -> tuple[torch.Generator, ...]:
        """Of each sample one: what is drawn for it in an epoch depends on nothing that it is computed beside."""
        device = self.points.valid.device
        return tuple(torch.Generator(device).manual_seed(derive_seed(seed, "draws")) for seed in self.seeds)

    def total(self, values: Tensor) -> Tensor:
        """Of sums over these samples those over the whole batch, with gradients: other ranks may have others of it."""
        return self.ranks.total(values)

    def forget_voxels(self) -> None:
        """Lets the pooled features go, a tenth of the memory of a step; who asks for them again has them made again."""
        self.__dict__.pop("voxels", None)

    @cached_property
    def samples(self) -> Padding:
        """How the N points are divided into samples."""
        return Padding.of(self.in_space.sizes, device=self.points.valid.device)

    @cached_property
    def tokens(self) -> Padding:
        """How the T tokens are divided into samples, as attention to a frame's own tokens needs it."""
        return Padding.of(self.points.token_counts, device=self.points.valid.device)

    def said(self) -> dict[str, Tensor]:
        """The statistics, detached.

        Raises
        ------
        DitrError: one is no number of the batch or of each sample.
        """
        for name, value in self.statistics.items():
            if value.shape not in ((), (len(self.in_space.sizes),)):
                what = f"the statistic {name} of a fusion part has the shape {tuple(value.shape)}"
                fix = "put () numbers into `features.statistics`, or (B,) in evaluation"
                raise DitrError(what, code=Code.RUN, where="fusion", fix=fix)
        return {name: value.detach() for name, value in self.statistics.items()}


class FusionModule(nn.Module):
    """Base of what a fusion part builds. N points, V voxels of a stride, S superpoints, of all samples together."""

    def add_to_voxels(self, features: BatchFeatures) -> Additions:
        """What to add inside the backbone at some places; of the 2D features alone, so it is known before the pass."""
        return {}

    def fuse_voxels(self, x: Tensor, place: Place, features: BatchFeatures) -> Tensor:
        """(V, width) at a place inside the backbone -> the same shape; called at every place, in the order of the pass.

        Additions are there already. A part that overrides this keeps training steps from being captured on a GPU: where
        ``add_to_voxels`` can say the same, it is faster.
        """
        return x

    def fuse_points(self, x: Tensor, features: BatchFeatures) -> Tensor:
        """(N, C) of the points after the backbone -> the same shape."""
        return x

    def fuse_superpoints(self, x: Tensor, superpoints: Segments, features: BatchFeatures) -> Tensor:
        """(S, C) of the superpoints, and which points are theirs -> the same shape."""
        return x

    def acts(self, act: Act) -> bool:
        """Whether the part overrides the method."""
        return getattr(type(self), act) is not getattr(FusionModule, act)


@contextmanager
def blame(part: str, of: object) -> Iterator[None]:
    """While entered, what the code of a part that is not built in raises is one message about the part.

    Raises
    ------
    DitrError: it raised something; with the place in the user's code.
    """
    try:
        yield
    except (DitrError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a user's code raises
        if type(of).__module__.startswith("ditr."):
            raise
        what = f"the fusion part {part} fails: {failure(error)}"
        raise DitrError(what, code=Code.RUN, where=f"fusion.{part}", fix="correct its module") from error


def require_like(found: object, shape: tuple[int, ...], *, device: torch.device, part: str, where: str) -> Tensor:
    """``found``.

    Raises
    ------
    DitrError: a part gives no tensor, or one of another shape than there is, of other numbers or on another device.
    """
    precise = not torch.is_autocast_enabled(device.type)
    if not isinstance(found, Tensor):
        what, wanted = f"a {type(found).__name__}", "a tensor"
    elif found.shape != shape:
        what, wanted = str(tuple(found.shape)), str(tuple(shape))
    elif found.dtype != torch.float32 if precise else not found.is_floating_point():
        what, wanted = str(found.dtype), "torch.float32" if precise else "a type of floats"
    elif found.device != device:
        what, wanted = f"a tensor on {found.device}", f"one on {device}"
    else:
        return found
    raise DitrError(
        f"the fusion part {part} gives {what} {where}, where there is {wanted}",
        code=Code.RUN,
        where=f"fusion.{part}",
        fix="correct its module: rows, channels, type, device stay as they are (`sizes` of `build` has the channels)",
    )
