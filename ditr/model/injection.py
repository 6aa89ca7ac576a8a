"""Multi-scale fusion: pooled 2D features, projected and added to a branch of each decoder stage.

Zero initialisation makes the model start as the 3D-only one exactly. A voxel without a 2D feature is never changed.
With ``linear_bn_gelu`` the zero lies on the norm's scale, never on the layer before it: a norm after a zero layer
rescales the first deviation to unit variance and the identity lasts one step (reference: ESAM sections 3.4, 10.6).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from torch import Tensor, nn

from ditr.errors import Code, DitrError
from ditr.model.pyramid import Level
from ditr.model.res16unet import Inject, skip_widths, up_widths
from ditr.model.sparse import SparseTensor, require_same_voxels, with_features
from ditr.spec.models import DECODER_STRIDES, BackboneSpec, InjectionSpec


class Injection(nn.Module):
    """One projection a scale."""

    def __init__(self, spec: InjectionSpec, *, backbone: BackboneSpec, feature_channels: int) -> None:
        super().__init__()
        self.target: Literal["up", "skip"] = spec.target
        widths = dict(zip(DECODER_STRIDES, _branch_widths(spec, backbone), strict=True))
        self.projections = nn.ModuleDict(
            {
                f"stride{stride}": Projection(feature_channels, widths[stride], kind=spec.projection, init=spec.init)
                for stride in spec.scales
            }
        )

    def hook(self, levels: Mapping[int, Level], *, statistics: dict[str, Tensor]) -> Inject:
        """What the backbone calls at each decoder stage; it writes each level's coverage and strength to statistics."""

        def inject(stride: int, up: SparseTensor, skip: SparseTensor) -> tuple[SparseTensor, SparseTensor]:
            if stride not in levels:
                return up, skip
            base = up if self.target == "up" else skip
            require_same_voxels(base, levels[stride].tensor, what=f"injection at stride {stride}")
            added = self._project(levels[stride], stride=stride)
            statistics[f"injection_s{stride}_empty_ratio"] = 1 - levels[stride].mask.float().mean()
            statistics[f"injection_s{stride}_relative_norm"] = (added.norm() / base.F.norm().clamp(min=1e-12)).detach()
            changed = with_features(base, base.F + added)
            return (changed, skip) if self.target == "up" else (up, changed)

        return inject

    def _project(self, level: Level, *, stride: int) -> Tensor:
        """(V, width): the projected features, exactly zero where the level has none."""
        projection = cast(Projection, self.projections[f"stride{stride}"])
        rows = level.mask.nonzero().squeeze(1)
        if self.training and projection.norm is not None and len(rows) == 1:
            raise DitrError(
                f"only one voxel of stride {stride} has a 2D feature in this batch, and batch normalisation needs two",
                code=Code.FEATURES,
                where=f"fusion.injection.scales: {stride}",
                fix="check that the points of these frames project into their images, or use projection: linear",
            )
        added = level.tensor.F.new_zeros(len(level.mask), projection.linear.out_features)
        if len(rows) == 0:
            return added
        return added.index_copy(0, rows, projection(level.tensor.F.index_select(0, rows)))


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
        out: Tensor = self.linear(features)
        if self.norm is not None and self.activation is not None:
            out = self.activation(self.norm(out))
        return out


def _branch_widths(spec: InjectionSpec, backbone: BackboneSpec) -> tuple[int, ...]:
    return up_widths(backbone) if spec.target == "up" else skip_widths(backbone)
