"""What a part of a fusion is to a spec: its fields, what builds its module, and what it promises of the start.

Built-in parts and those of a project or package are all of this kind.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from ditr.spec.part import Part

Scale = Literal[16, 8, 4, 2, 1]
DECODER_STRIDES: tuple[Scale, ...] = (8, 4, 2, 1)
"""Tensor strides after the four transposed convolutions of Res16UNet, in the order of the forward pass."""
BOTTLENECK_STRIDE: Scale = 16
"""Tensor stride of the encoder's end, where the first transposed convolution starts."""

Branch = Literal["stem", "bottleneck", "up", "skip"]
"""Of the backbone: after its stem, at its coarsest voxels, and the two that every decoder stage concatenates."""
Place = tuple[Branch, int]
"""Where in the backbone: a branch and its stride."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Channels of what a part meets in its model."""

    features: int
    """Of the 2D features."""
    voxels: Mapping[Place, int]
    """Of the voxels at each place inside the backbone."""
    points: int
    """Of the points after the backbone, and of the superpoints."""


class FusionPart(Part):
    """Base of the fields of a fusion part.

    A subclass has fields with a docstring under each, and ``build``.
    """

    model_config = ConfigDict(validate_default=True)

    leaves_missing: ClassVar[bool] = True
    """Whether points, voxels and superpoints without any 2D feature stay as they are; `ditr check` looks if they do."""

    @property
    def starts_as_nothing(self) -> bool:
        """Whether a model with this part starts as the 3D-only model, bit for bit; `ditr check` looks if it does."""
        return True

    @abstractmethod
    def build(self, sizes: Sizes) -> Any:
        """The part's module, a ``FusionModule``, on the CPU; what is random in it comes from torch's generator."""
