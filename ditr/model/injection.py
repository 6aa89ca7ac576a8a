"""2D features added inside the backbone: pooled and projected to a branch of each decoder stage, or to the stem.

Zero initialisation makes the model start as the 3D-only one exactly. A voxel without a 2D feature is never changed.
With ``linear_bn_gelu`` the zero lies on the norm's scale, never on the layer before it: a norm after a zero layer
rescales the first deviation to unit variance and the identity lasts one step (docs/reference/fusion.md, Zero
start; docs/reference/esam.md, Places of injection).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ditr.errors import Code, DitrError
from ditr.model.batch_norm import masked_batch_norm
from ditr.model.full_precision import at_least_float32
from ditr.model.fusion import Additions, BatchFeatures, FusionModule
from ditr.model.voxel_features import Pooling
from ditr.spec.fusion import InjectionSpec, StemSpec
from ditr.spec.fusion_part import BOTTLENECK_STRIDE, Place, Sizes

NORMALISED_VOXELS = "_normalised_voxels"
"""Ends the name of the statistic that ``require_two_voxels`` looks at."""


class Projection(nn.Module):
    """(V, C) -> (V, width) without a bias, so that nothing in is nothing out."""

    def __init__(
        self, channels: int, width: int, *, kind: Literal["linear", "linear_bn_gelu"], init: Literal["zero", "random"]
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, width, bias=False)
        self.norm = nn.BatchNorm1d(width) if kind == "linear_bn_gelu" else None
        self.activation = nn.GELU() if kind == "linear_bn_gelu" else None
        if init == "zero":
            nn.init.zeros_(self.linear.weight if self.norm is None else self.norm.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Of voxels that all have a feature."""
        return self.finish(self.linear(features), mask=features.new_ones(len(features), dtype=torch.bool))

    def of_voxels(self, features: BatchFeatures, *, stride: int, pooling: Pooling, name: str) -> tuple[Tensor, Tensor]:
        """(V, width) twice, of the pooled features of a stride: after the linear layer, and in the end.

        ``name`` is how the number of voxels that the norm is over is called in training.
        """
        out, mask = features.voxels.projected(stride, self.linear, pooling=pooling), features.voxels.mask(stride)
        if self.norm is not None and self.norm.training:
            features.statistics[f"{name}{NORMALISED_VOXELS}"] = features.total(mask.sum())
        return out, self.finish(out, mask=mask)

    def finish(self, out: Tensor, *, mask: Tensor) -> Tensor:
        """What follows the linear layer; the norm is over the masked rows, and the others stay zero."""
        if self.norm is None or self.activation is None:
            return out
        normalised: Tensor = self.activation(masked_batch_norm(out, mask, self.norm))
        return normalised.masked_fill(~mask.unsqueeze(1), 0)


class Injection(FusionModule):
    """One projection a scale."""

    def __init__(self, spec: InjectionSpec, *, sizes: Sizes) -> None:
        super().__init__()
        self.spec = spec
        self.places = tuple(self._place(stride) for stride in spec.scales)
        self.projections = nn.ModuleDict(
            {
                f"stride{place[1]}": Projection(
                    sizes.features, sizes.voxels[place], kind=spec.projection, init=spec.init
                )
                for place in self.places
            }
        )

    def add_to_voxels(self, features: BatchFeatures) -> Additions:
        return {place: self._added(place, features) for place in self.places}

    def _place(self, stride: int) -> Place:
        """Stride 16 has one branch only, the bottleneck."""
        return ("bottleneck" if stride == BOTTLENECK_STRIDE else self.spec.target, stride)

    def _added(self, place: Place, features: BatchFeatures) -> Tensor:
        """(V, width) in the precision of the linear layer.

        A linear layer and a mean commute: only what does not is worth its pass at stride 1.
        """
        spec, stride = self.spec, place[1]
        projection = cast(Projection, self.projections[f"stride{stride}"])
        commutes = spec.pooling == "mean" and projection.norm is None
        at = 1 if spec.order == "project_then_pool" and not commutes else stride
        out, values = projection.of_voxels(features, stride=at, pooling=spec.pooling, name=f"injection_s{stride}")
        if at < stride:
            values = features.voxels.pool_up(at_least_float32(values), stride=stride, pooling=spec.pooling)
        return values.to(out.dtype)


class StemFusion(FusionModule):
    """2D features added to the stem's output, so to encoder and skip (docs/reference/esam.md, Places of injection)."""

    def __init__(self, spec: StemSpec, *, sizes: Sizes) -> None:
        super().__init__()
        self.projection = Projection(sizes.features, sizes.voxels["stem", 1], kind=spec.projection, init=spec.init)

    def add_to_voxels(self, features: BatchFeatures) -> Additions:
        out, values = self.projection.of_voxels(features, stride=1, pooling="mean", name="injection_stem")
        return {("stem", 1): values.to(out.dtype)}


def require_two_voxels(statistics: Mapping[str, float], *, where: str) -> None:
    """Of one step, in numbers.

    Raises
    ------
    DitrError: a batch normalisation was over a single voxel, whose variance is none.
    """
    for name, value in statistics.items():
        if name.endswith(NORMALISED_VOXELS) and value == 1:
            raise DitrError(
                f"only one voxel of the batch has a 2D feature at {name.removesuffix(NORMALISED_VOXELS)}, and batch "
                "normalisation needs two",
                code=Code.FEATURES,
                where=where,
                fix="check that the points of these frames project into their images, or use projection: linear",
            )
