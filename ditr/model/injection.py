"""2D features added inside the backbone: pooled and projected to a branch of each decoder stage, or to the stem.

Zero initialisation makes the model start as the 3D-only one exactly. A voxel without a 2D feature is never changed.
With ``linear_bn_gelu`` the zero lies on the norm's scale, never on the layer before it: a norm after a zero layer
rescales the first deviation to unit variance and the identity lasts one step (docs/reference/fusion.md, Zero
start; docs/reference/esam.md, Places of injection).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor, nn

from ditr.errors import Code, DitrError
from ditr.model.res16unet import Branch, skip_widths, up_widths
from ditr.model.sparse import SparseTensor, VoxelSet, require_same_voxels
from ditr.model.statistics import OfSamples, mean_of, norm_of
from ditr.model.voxel_features import VoxelFeatures
from ditr.spec.models import BOTTLENECK_STRIDE, DECODER_STRIDES, BackboneSpec, InjectionSpec, StemSpec


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
        return self.finish(self.linear(features))

    def finish(self, out: Tensor) -> Tensor:
        """What follows the linear layer."""
        if self.norm is not None and self.activation is not None:
            out = self.activation(self.norm(out))
        return out


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where 2D features enter, and how."""

    field: str
    """Of the spec."""
    statistic: str
    """How its statistics are called: injection_<this>_..."""
    projection: Projection
    project_first: bool
    """Project the features of stride 1, then pool; else pool, then project."""


Places = Mapping[tuple[Branch, int], Place]
"""By branch and stride."""


class Injection(nn.Module):
    """One projection a scale."""

    def __init__(self, spec: InjectionSpec, *, backbone: BackboneSpec, feature_channels: int) -> None:
        super().__init__()
        self.spec = spec
        widths = _widths(spec, backbone)
        self.projections = nn.ModuleDict(
            {
                f"stride{stride}": Projection(feature_channels, widths[stride], kind=spec.projection, init=spec.init)
                for stride in spec.scales
            }
        )

    def places(self) -> Places:
        """Stride 16 has one branch only, the bottleneck."""
        places: dict[tuple[Branch, int], Place] = {}
        for stride in self.spec.scales:
            branch: Branch = "bottleneck" if stride == BOTTLENECK_STRIDE else self.spec.target
            places[branch, stride] = Place(
                field=f"fusion.injection.scales: {stride}",
                statistic=f"s{stride}",
                projection=cast(Projection, self.projections[f"stride{stride}"]),
                project_first=self.spec.order == "project_then_pool",
            )
        return places


class StemFusion(nn.Module):
    """2D features added to the stem's output, so to encoder and skip (docs/reference/esam.md, Places of injection)."""

    def __init__(self, spec: StemSpec, *, backbone: BackboneSpec, feature_channels: int) -> None:
        super().__init__()
        self.projection = Projection(feature_channels, backbone.stem_channels, kind=spec.projection, init=spec.init)

    def places(self) -> Places:
        place = Place(field="fusion.stem", statistic="stem", projection=self.projection, project_first=False)
        return {("stem", 1): place}


class Injector:
    """What the backbone calls, for one batch; it writes each place's coverage and strength to ``statistics``.

    ``samples`` says of how many samples each; None takes the batch as one.
    """

    def __init__(
        self,
        places: Places,
        *,
        features: VoxelFeatures,
        statistics: dict[str, Tensor],
        samples: int | None = None,
    ) -> None:
        self.places = places
        self._features = features
        self._statistics = statistics
        self._samples = samples

    def __call__(self, branch: Branch, stride: int, tensor: SparseTensor) -> SparseTensor:
        """Adds the place's projected features; where there is no place, nothing changes."""
        place = self.places.get((branch, stride))
        if place is None:
            return tensor
        covered = self._features.covered(stride)
        require_same_voxels(tensor.voxels, covered.voxels, what=f"injection at {branch} of stride {stride}")
        name, each = f"injection_{place.statistic}", self._each(covered.voxels)
        self._statistics[f"{name}_empty_ratio"] = 1 - mean_of(covered.mask.float(), each)
        if len(covered.rows) == 0:
            self._statistics[f"{name}_relative_norm"] = tensor.features.new_zeros(())
            return tensor
        added = covered.spread(self._added(place, stride=stride))
        before = norm_of(tensor.features.detach(), each).clamp(min=1e-12)
        self._statistics[f"{name}_relative_norm"] = norm_of(added.detach(), each) / before
        return tensor.with_features(tensor.features + added)

    def _each(self, voxels: VoxelSet) -> OfSamples | None:
        return None if self._samples is None else OfSamples(voxels.corners[:, 0].long(), self._samples)

    def voxels(self, stride: int) -> VoxelSet:
        """Those that ``mask`` and ``features`` are of: the backbone's own."""
        return self._features.covered(stride).voxels

    def mask(self, stride: int) -> Tensor:
        """(V,) bool: the voxel has a 2D feature; in the row order of the backbone's tensors of this stride."""
        return self._features.covered(stride).mask

    def features(self, stride: int) -> Tensor:
        """(V, C): the pooled 2D features, zero outside the mask; for looking at, the model never holds stride 1's."""
        return self._features.covered(stride).spread(self._features.pooled(stride))

    def _added(self, place: Place, *, stride: int) -> Tensor:
        """(M, width) of the covered voxels."""
        features, projection = self._features, place.projection
        # A linear layer and a mean commute: only what does not is worth its pass at stride 1.
        commutes = features.pooling == "mean" and projection.norm is None
        at = 1 if place.project_first and not commutes else stride
        self._require_two(place, stride=at)
        values = projection.finish(features.projected(at, projection.linear))
        return values if at == stride else features.pool_up(values, stride=stride)

    def _require_two(self, place: Place, *, stride: int) -> None:
        norm = place.projection.norm
        if norm is not None and norm.training and len(self._features.covered(stride).rows) == 1:
            raise DitrError(
                f"only one voxel of stride {stride} has a 2D feature in this batch, and batch normalisation needs two",
                code=Code.FEATURES,
                where=place.field,
                fix="check that the points of these frames project into their images, or use projection: linear",
            )


def _widths(spec: InjectionSpec, backbone: BackboneSpec) -> dict[int, int]:
    branches = up_widths(backbone) if spec.target == "up" else skip_widths(backbone)
    return {BOTTLENECK_STRIDE: backbone.planes[3], **dict(zip(DECODER_STRIDES, branches, strict=True))}
