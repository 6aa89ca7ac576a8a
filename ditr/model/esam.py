"""The whole model: ESAM (docs/reference/esam.md, Voxels; Backbone; Pool; Decoder) with or without 2D features."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ditr.data.batch import Batch, Sample
from ditr.errors import Code, DitrError
from ditr.geometry.sampling import Reading, read_at
from ditr.model.bifusion import BiFusion
from ditr.model.injection import Injection, Injector, StemFusion
from ditr.model.output import ModelOutput, SampleOutput
from ditr.model.point_features import PointFeatures, stack
from ditr.model.query_decoder import PointGroups, ScanNetMixQueryDecoder, select_queries
from ditr.model.res16unet import Res16UNet
from ditr.model.sparse import Voxels, one_thread, voxelise
from ditr.model.superpoint_pool import GeoAwarePooling, PooledSuperpoints
from ditr.model.voxel_features import VoxelFeatures
from ditr.seeds import derive_seed
from ditr.spec.models import Engine, FusionSpec, ModelSpec


class EsamSingleView(nn.Module):
    """Backbone -> points -> [BiFusion] -> superpoints -> query decoder; [injection] and [stem] act in the backbone.

    ``backbone``, ``pool`` and ``decoder`` are ESAM's 3D-only model by name and shape. They are built first: with the
    same torch seed every arm starts from the same 3D weights.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        fusion: FusionSpec,
        feature_channels: int | None,
        sampling: Literal["nearest", "bilinear"],
        query_fraction: float,
        engine: Engine = "minkowski",
    ) -> None:
        super().__init__()
        self.engine: Engine = engine
        self.voxel_size_m = spec.voxel_size_m
        self.fusion = fusion
        self.sampling = sampling
        self.query_fraction = query_fraction
        self.backbone = Res16UNet(spec.backbone)
        channels = self.backbone.out_channels
        self.pool = GeoAwarePooling(channels)
        self.decoder = ScanNetMixQueryDecoder(spec.decoder, in_channels=channels)

        self.feature_channels = _channels_needed(fusion, feature_channels)
        self.injection: Injection | None = None
        self.bifusion: BiFusion | None = None
        self.stem: StemFusion | None = None
        if self.feature_channels is not None and fusion.injection is not None:
            self.injection = Injection(fusion.injection, backbone=spec.backbone, feature_channels=self.feature_channels)
        if self.feature_channels is not None and fusion.bifusion is not None:
            self.bifusion = BiFusion(fusion.bifusion, channels=channels, feature_channels=self.feature_channels)
        if self.feature_channels is not None and fusion.stem is not None:
            self.stem = StemFusion(fusion.stem, backbone=spec.backbone, feature_channels=self.feature_channels)

    def voxelise(self, batch: Batch) -> Voxels:
        """May be called before ``forward``, beside the step of another batch."""
        with one_thread():
            return voxelise(batch, voxel_size_m=self.voxel_size_m)

    def forward(self, batch: Batch, voxels: Voxels | None = None) -> ModelOutput:
        """In training, queries are a random share of each sample's superpoints, seeded by the sample; else all.

        ``voxels`` are those of the batch, where they are made already.
        """
        statistics: dict[str, Tensor] = {}
        points = self.read_2d(batch, statistics=statistics)
        voxels = self.voxelise(batch) if voxels is None else voxels
        with one_thread():
            out = self.backbone(voxels.tensor, inject=self.injector(points, voxels, statistics=statistics))
        features, balance_loss = self._fuse(
            out.F.index_select(0, voxels.voxel_of_point), points, voxels, statistics=statistics
        )
        return ModelOutput(
            samples=self._decode(features, batch),
            balance_loss=balance_loss,
            statistics={name: value.detach() for name, value in statistics.items()},
        )

    def read_2d(self, batch: Batch, *, statistics: dict[str, Tensor]) -> PointFeatures | None:
        """What every point reads of its frame's map; None in the 3D-only model."""
        if self.feature_channels is None:
            return None
        maps = [_map_of(sample, channels=self.feature_channels) for sample in batch]
        readings = [_reading(sample, tokens, mode=self.sampling) for sample, tokens in zip(batch, maps, strict=True)]
        points = stack(maps, readings, valid=torch.cat([sample.uv_valid for sample in batch]))
        statistics["valid_ratio"] = points.valid.float().mean()
        return points

    def injector(
        self, points: PointFeatures | None, voxels: Voxels, *, statistics: dict[str, Tensor]
    ) -> Injector | None:
        """What the backbone calls for one batch; None if no part of the fusion acts in it."""
        places = {
            where: place
            for part in (self.injection, self.stem)
            if part is not None
            for where, place in part.places().items()
        }
        if points is None or not places:
            return None
        pooling = self.fusion.injection.pooling if self.fusion.injection is not None else "mean"
        return Injector(places, features=VoxelFeatures(points, voxels, pooling=pooling), statistics=statistics)

    def _fuse(
        self, features: Tensor, points: PointFeatures | None, voxels: Voxels, *, statistics: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        if self.bifusion is None or points is None:
            return features, None
        sizes = torch.tensor(voxels.sizes, device=features.device)
        sample_of_point = torch.arange(len(sizes), device=features.device).repeat_interleave(sizes)
        fused = self.bifusion(features, points, sample_of_point=sample_of_point, samples=len(sizes))
        statistics.update(fused.statistics)
        return fused.features, fused.balance_loss if self.training else None

    def _decode(self, features: Tensor, batch: Batch) -> tuple[SampleOutput, ...]:
        counts = [sample.num_superpoints for sample in batch]
        bounds = _offsets(counts)
        superpoints = torch.cat([sample.superpoints + start for sample, start in zip(batch, bounds, strict=False)])
        xyz = torch.cat([sample.xyz for sample in batch])
        pooled: PooledSuperpoints = self.pool(features, xyz, superpoints, count=bounds[-1])
        sizes = [len(sample.xyz) for sample in batch]
        return tuple(
            self._decode_one(sample, of_superpoints, of_points, weights)
            for sample, of_superpoints, of_points, weights in zip(
                batch,
                torch.split(pooled.features, counts),
                torch.split(features, sizes),
                torch.split(pooled.point_weights, sizes),
                strict=True,
            )
        )

    def _decode_one(self, sample: Sample, of_superpoints: Tensor, of_points: Tensor, weights: Tensor) -> SampleOutput:
        count = len(of_superpoints)
        if self.training:
            seed = derive_seed(sample.seed, "queries")
            queries = select_queries(count, fraction=self.query_fraction, seed=seed).to(of_points.device)
        else:
            queries = torch.arange(count, device=of_points.device)
        output: SampleOutput = self.decoder(
            of_superpoints,
            torch.cat([sample.xyz, of_points], dim=1),
            queries=queries,
            groups=PointGroups(superpoints=sample.superpoints, weights=weights, count=count),
        )
        return output


def _map_of(sample: Sample, *, channels: int) -> Tensor:
    tokens = sample.tokens
    if tokens is None:
        raise DitrError(
            "this model fuses 2D features and the frame has none",
            code=Code.FEATURES,
            where=sample.frame_id,
            fix="open the samples with the feature store of the spec's `features`, or remove `fusion`",
        )
    if tokens.shape[0] != channels:
        raise DitrError(
            f"the frame's 2D features have {tokens.shape[0]} channels and the model was built for {channels}",
            code=Code.FEATURES,
            where=sample.frame_id,
            fix="use the feature source that the model was built (or trained) with",
        )
    return tokens


def _reading(sample: Sample, tokens: Tensor, *, mode: Literal["nearest", "bilinear"]) -> Reading:
    return read_at(sample.uv, grid_hw=(tokens.shape[1], tokens.shape[2]), map_hw=sample.map_hw, mode=mode)


def _channels_needed(fusion: FusionSpec, feature_channels: int | None) -> int | None:
    """None for the 3D-only model, whatever source the spec names."""
    if not fusion.parts:
        return None
    if feature_channels is None:
        raise DitrError(
            "a fusion needs the channel count of its feature source",
            code=Code.FEATURES,
            where="fusion",
            fix="name a source under `features`",
        )
    return feature_channels


def _offsets(counts: list[int]) -> list[int]:
    offsets = [0]
    for count in counts:
        offsets.append(offsets[-1] + count)
    return offsets
