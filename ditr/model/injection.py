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

import torch
from torch import Tensor, nn

from ditr.errors import Code, DitrError
from ditr.model.full_precision import at_least_float32
from ditr.model.masked_norm import masked_batch_norm
from ditr.model.res16unet import Branch, skip_widths, up_widths
from ditr.model.sparse import SparseTensor, VoxelSet, require_same_voxels
from ditr.model.statistics import OfSamples, mean_of, total_of
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
        """Of voxels that all have a feature."""
        return self.finish(self.linear(features), mask=features.new_ones(len(features), dtype=torch.bool))

    def finish(self, out: Tensor, *, mask: Tensor) -> Tensor:
        """What follows the linear layer; the norm is over the masked rows, and the others stay zero."""
        if self.norm is None or self.activation is None:
            return out
        normalised: Tensor = self.activation(masked_batch_norm(out, mask, self.norm))
        return normalised.masked_fill(~mask.unsqueeze(1), 0)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where 2D features enter, and how."""

    statistic: str
    """How its statistics are called: injection_<this>_..."""
    projection: Projection
    project_first: bool
    """Project the features of stride 1, then pool; else pool, then project."""


Places = Mapping[tuple[Branch, int], Place]
"""By branch and stride."""

Additions = Mapping[tuple[Branch, int], Tensor]
"""By place: (V, width), zero where there is no feature."""

RowSquares = dict[tuple[Branch, int], Tensor]
"""By place: (V,) squared length of each row of what was there before."""

NORMALISED_VOXELS = "_normalised_voxels"
"""Ends the name of the statistic that ``require_two_voxels`` looks at."""


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
        place = Place(statistic="stem", projection=self.projection, project_first=False)
        return {("stem", 1): place}


class Injector:
    """What 2D features add inside the backbone for one batch: known before the backbone runs."""

    def __init__(self, places: Places, *, features: VoxelFeatures, samples: int | None = None) -> None:
        """Statistics are of each of ``samples``, or of the batch as one."""
        self.places = places
        self._features = features
        self._samples = samples

    def additions(self) -> Additions:
        """In the precision of each place's linear layer."""
        return {(branch, stride): self._added(place, stride=stride) for (branch, stride), place in self.places.items()}

    def statistics(self, additions: Additions, *, met: RowSquares) -> dict[str, Tensor]:
        """Of each place: the share of voxels without a feature, how strong what was added is beside what it ``met``,
        and in training how many voxels a norm was over."""
        found = {}
        for (branch, stride), place in self.places.items():
            name, coverage = f"injection_{place.statistic}", self._features.coverage(stride)
            each = self._each(coverage.voxels)
            found[f"{name}_empty_ratio"] = 1 - mean_of(coverage.mask.float(), each)
            of_added = total_of(_row_squares(additions[branch, stride]), each)
            found[f"{name}_relative_norm"] = (of_added / total_of(met[branch, stride], each).clamp(min=1e-24)).sqrt()
            norm = place.projection.norm
            if norm is not None and norm.training:
                found[f"{name}{NORMALISED_VOXELS}"] = self.mask(self._projected_at(place, stride=stride)).sum()
        return found

    def _each(self, voxels: VoxelSet) -> OfSamples | None:
        return None if self._samples is None else OfSamples(voxels.corners[:, 0].long(), self._samples)

    def voxels(self, stride: int) -> VoxelSet:
        """Those that ``mask`` and ``features`` are of: the backbone's own."""
        return self._features.coverage(stride).voxels

    def mask(self, stride: int) -> Tensor:
        """(V,) bool: the voxel has a 2D feature; in the row order of the backbone's tensors of this stride."""
        return self._features.coverage(stride).mask

    def features(self, stride: int) -> Tensor:
        """(V, C): the pooled 2D features, zero outside the mask; for looking at, the model never holds stride 1's."""
        return self._features.pooled(stride)

    def _added(self, place: Place, *, stride: int) -> Tensor:
        """(V, width)."""
        at, projection = self._projected_at(place, stride=stride), place.projection
        out = self._features.projected(at, projection.linear)
        values = projection.finish(out, mask=self.mask(at))
        if at < stride:
            values = self._features.pool_up(at_least_float32(values), stride=stride)
        return values.to(out.dtype)

    def _projected_at(self, place: Place, *, stride: int) -> int:
        """A linear layer and a mean commute: only what does not is worth its pass at stride 1."""
        commutes = self._features.pooling == "mean" and place.projection.norm is None
        return 1 if place.project_first and not commutes else stride


class Adder:
    """What the backbone calls: it adds what was made for its places.

    Nothing in it waits for the device, and it knows nothing of a batch but these tensors and voxels.

    Parameters
    ----------
    additions: by place.
    voxels: of stride 1; additions of coarser strides are on the coarser ones of these.
    met: where the row squares of what each place adds to are written.
    injector: where the additions are from.
    """

    def __init__(
        self, additions: Additions, *, voxels: VoxelSet, met: RowSquares, injector: Injector | None = None
    ) -> None:
        self.injector = injector
        self._additions, self._voxels, self._met = additions, voxels, met

    def __call__(self, branch: Branch, stride: int, tensor: SparseTensor) -> SparseTensor:
        """Where there is no place, nothing changes."""
        added = self._additions.get((branch, stride))
        if added is None:
            return tensor
        require_same_voxels(tensor.voxels, self._of_stride(stride), what=f"injection at {branch} of stride {stride}")
        self._met[branch, stride] = _row_squares(tensor.features)
        return tensor.with_features(tensor.features + added.to(tensor.features.dtype))

    def _of_stride(self, stride: int) -> VoxelSet:
        voxels = self._voxels
        while voxels.stride < stride:
            voxels = voxels.coarser
        return voxels


def _row_squares(values: Tensor) -> Tensor:
    """(V,) float32 squared length of each row."""
    return values.detach().float().square().sum(dim=1)


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


def _widths(spec: InjectionSpec, backbone: BackboneSpec) -> dict[int, int]:
    branches = up_widths(backbone) if spec.target == "up" else skip_widths(backbone)
    return {BOTTLENECK_STRIDE: backbone.planes[3], **dict(zip(DECODER_STRIDES, branches, strict=True))}
