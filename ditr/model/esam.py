"""The whole model: ESAM (docs/reference/esam.md, Voxels; Backbone; Pool; Decoder) with or without 2D features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from ditr.data.batch import Batch, Sample
from ditr.errors import Code, DitrError
from ditr.geometry.sampling import Reading, one_each, read_at
from ditr.model.attention import PointGroups
from ditr.model.batch_norm import share_norms
from ditr.model.fusion import Additions, BatchFeatures, FusionModule, blame, require_like
from ditr.model.injector import Adder, Injector, RowSquares
from ditr.model.output import Layout, ModelOutput
from ditr.model.padding import Padding, sent
from ditr.model.point_features import PointFeatures, stack
from ditr.model.query_decoder import Decoded, ScanNetMixQueryDecoder, select_queries
from ditr.model.res16unet import Res16UNet, widths_of
from ditr.model.segments import Segments
from ditr.model.sparse import SparseTensor, Voxels, VoxelSet, one_thread, voxelise
from ditr.model.statistics import mean_of
from ditr.model.superpoint_pool import GeoAwarePooling, PooledSuperpoints
from ditr.ranks import ALONE, Ranks
from ditr.seeds import derive_seed
from ditr.spec.fusion import FusionSpec
from ditr.spec.fusion_part import FusionPart, Sizes
from ditr.spec.models import Engine, ModelSpec

if TYPE_CHECKING:
    from ditr.model.sparse.triton.replay import Replay


class EsamSingleView(nn.Module):
    """Backbone -> points -> superpoints -> query decoder, with the parts of a fusion inside and between them.

    ``backbone``, ``pool`` and ``decoder`` are ESAM's 3D-only model by name and shape. They are built first: with the
    same torch seed every arm starts from the same 3D weights. The parts are modules under their own names.
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
        self.engine = engine
        self._replay: Replay | None = None
        self._ranks: Ranks = ALONE
        self.voxel_size_m = spec.voxel_size_m
        self.sampling = sampling
        self.query_fraction = query_fraction
        self.backbone = Res16UNet(spec.backbone)
        channels = self.backbone.out_channels
        self.pool = GeoAwarePooling(channels)
        self.decoder = ScanNetMixQueryDecoder(spec.decoder, in_channels=channels)

        self.feature_channels = _channels_needed(fusion, feature_channels)
        self.widths = widths_of(spec.backbone)
        self._names = tuple(fusion.parts)
        for name, part in fusion.parts.items():
            sizes = Sizes(features=self.feature_channels or 0, voxels=self.widths, points=channels)
            self.add_module(name, _built(part, sizes, name=name, model=self))

    @property
    def parts(self) -> dict[str, FusionModule]:
        """The modules of the fusion by name, in the order in which they act."""
        return {name: cast(FusionModule, getattr(self, name)) for name in self._names}

    @property
    def added_parameters(self) -> dict[str, nn.Parameter]:
        """By their names in the model, those of the fusion's parts."""
        return {name: weight for name, weight in self.named_parameters() if name.partition(".")[0] in self._names}

    @property
    def uncaptured(self) -> tuple[str, ...]:
        """Names of the parts that read what is inside the backbone: with them no training pass is captured."""
        return tuple(name for name, module in self.parts.items() if module.acts("fuse_voxels"))

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """While entered, training passes of the backbone are captured once and launched again: the same numbers with
        less work for the host. Only the triton engine's are, on a GPU; hooks inside the backbone are not called then.
        """
        if self.engine == "triton" and next(self.parameters()).is_cuda and not self.uncaptured:
            from ditr.model.sparse.triton.replay import Replay

            self._replay = Replay(self.backbone, ranks=self._ranks)
        try:
            yield
        finally:
            self._replay = None

    def share(self, ranks: Ranks) -> None:
        """From now on a training pass is of one rank's part of a batch, and what is of the whole batch of all parts."""
        share_norms(self, ranks=ranks)
        self._ranks = ranks

    def voxelise(self, batch: Batch) -> Voxels:
        """May be called before ``forward``, beside the step of another batch."""
        with one_thread():
            return voxelise(batch, voxel_size_m=self.voxel_size_m, engine=self.engine)

    def forward(self, batch: Batch, voxels: Voxels | None = None) -> ModelOutput:
        """In training, queries are a random share of each sample's superpoints, seeded by the sample; else all.

        ``voxels`` are those of the batch, where they are made already.
        """
        statistics: dict[str, Tensor] = {}
        points = self.read_2d(batch, statistics=statistics)
        voxels = self.voxelise(batch) if voxels is None else voxels
        features = None
        if points is not None:
            features = BatchFeatures(
                points=points,
                in_space=voxels,
                statistics=statistics,
                seeds=tuple(sample.seed for sample in batch),
                ranks=self._ranks if self.training else ALONE,
            )
        out = self.run_backbone(features, voxels)
        return self._decode(
            self._fuse_points(voxels.of_points.spread(out.features), features), batch, features=features
        )

    def run_backbone(self, features: BatchFeatures | None, voxels: Voxels) -> SparseTensor:
        """With what the fusion does inside it."""
        injector = self.injector(features)
        added = {} if injector is None else injector.additions()

        def inject(additions: Additions, on: VoxelSet, met: RowSquares) -> Adder | None:
            return None if injector is None else Adder(additions, voxels=on, met=met, injector=injector)

        met: RowSquares = {}
        if self._replay is not None and self.training:
            out, met = self._replay(voxels.tensor, added=added, inject=inject)
        else:
            with one_thread():
                out = self.backbone(voxels.tensor, inject=inject(added, voxels.tensor.voxels, met))
        if injector is not None:
            injector.features.statistics.update(injector.statistics(added, met=met))
            if self.training:
                injector.features.forget_voxels()
        return out

    def read_2d(self, batch: Batch, *, statistics: dict[str, Tensor]) -> PointFeatures | None:
        """What every point reads of its frame's map; None in the 3D-only model."""
        if self.feature_channels is None:
            return None
        maps = [_map_of(sample, channels=self.feature_channels) for sample in batch]
        readings = _readings(batch, maps, mode=self.sampling)
        points = stack(maps, readings, valid=torch.cat([sample.uv_valid for sample in batch]))
        if self.training:
            valid = points.valid.float()
            statistics["valid_ratio"] = mean_of(valid, None, ranks=self._ranks)
        else:
            statistics["valid_ratio"] = torch.stack([sample.uv_valid.float().mean() for sample in batch])
        return points

    def injector(self, features: BatchFeatures | None) -> Injector | None:
        """What is to be done inside the backbone for one batch; None if no part of the fusion acts in it."""
        parts = self.parts
        if features is None or not any(one.acts("add_to_voxels") or one.acts("fuse_voxels") for one in parts.values()):
            return None
        samples = None if self.training else len(features.in_space.sizes)
        return Injector(parts, features=features, widths=self.widths, samples=samples)

    def _fuse_points(self, x: Tensor, features: BatchFeatures | None) -> Tensor:
        if features is not None:
            for name, module in self.parts.items():
                with blame(name, module):
                    fused = module.fuse_points(x, features)
                x = require_like(fused, x.shape, device=x.device, part=name, where="at the points")
        return x

    def _fuse_superpoints(self, x: Tensor, superpoints: Segments, features: BatchFeatures | None) -> Tensor:
        if features is not None:
            for name, module in self.parts.items():
                with blame(name, module):
                    fused = module.fuse_superpoints(x, superpoints, features)
                x = require_like(fused, x.shape, device=x.device, part=name, where="at the superpoints")
        return x

    def _layout(self, batch: Batch) -> tuple[Layout, Tensor]:
        """What is in each sample, and the (B, Q) superpoints that its queries come from."""
        counts = [sample.num_superpoints for sample in batch]
        if self.training:
            seeds = [derive_seed(sample.seed, "queries") for sample in batch]
            queries = [
                select_queries(count, fraction=self.query_fraction, seed=seed)
                for count, seed in zip(counts, seeds, strict=True)
            ]
        else:
            queries = [torch.arange(count) for count in counts]
        device = batch.samples[0].xyz.device
        layout = Layout(
            points=_points(batch),
            superpoints=Padding.of(counts, device=device),
            queries=Padding.of([len(chosen) for chosen in queries], device=device),
        )
        return layout, sent(nn.utils.rnn.pad_sequence(queries, batch_first=True), device=device)

    def _decode(self, of_points: Tensor, batch: Batch, *, features: BatchFeatures | None = None) -> ModelOutput:
        layout, queries = self._layout(batch)
        points, superpoints = layout.points, layout.superpoints
        xyz = torch.cat([sample.xyz for sample in batch])
        starts = superpoints.starts.index_select(0, points.sample_of_row)
        segments = Segments(
            of_row=torch.cat([sample.superpoints for sample in batch]) + starts, count=sum(superpoints.counts)
        )
        pooled: PooledSuperpoints = self.pool(of_points, xyz, segments)
        decoded: Decoded = self.decoder(
            superpoints.pad(self._fuse_superpoints(pooled.features, segments, features)),
            points.pad(torch.cat([xyz, of_points], dim=1)),
            queries=queries,
            groups=PointGroups(superpoints=segments, weights=pooled.point_weights),
            layout=layout,
        )
        return ModelOutput(
            heads=decoded.heads,
            semantic_logits=decoded.semantic_logits,
            query_superpoints=queries,
            layout=layout,
            fusion_losses=features.losses if features is not None and self.training else {},
            statistics={} if features is None else features.said(),
        )


def _built(part: FusionPart, sizes: Sizes, *, name: str, model: nn.Module) -> FusionModule:
    """The part's module.

    Raises
    ------
    DitrError: it is none, or its name is an attribute of the model.
    """
    with blame(name, part):
        module = part.build(sizes)
    if not isinstance(module, FusionModule):
        what = f"the fusion part {name} builds a {type(module).__name__}, not a FusionModule"
        raise DitrError(
            what, code=Code.RUN, where=f"fusion.{name}", fix="let its module extend ditr.fusion.FusionModule"
        )
    if hasattr(model, name):
        what = f"a fusion part cannot be called {name}: the model has something of that name"
        raise DitrError(what, code=Code.RUN, where=f"fusion.{name}", fix="name it otherwise")
    return module


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


def _readings(batch: Batch, maps: list[Tensor], *, mode: Literal["nearest", "bilinear"]) -> list[Reading]:
    """What the points of each sample read of its own map, whose sizes may differ; all at once."""
    covered = [sample.map_hw for sample in batch if sample.map_hw is not None]
    if not covered:
        return [one_each(len(sample.xyz), device=sample.xyz.device) for sample in batch]
    points = _points(batch)
    sizes = [(*tokens.shape[1:], *map_hw) for tokens, map_hw in zip(maps, covered, strict=True)]
    of_samples = sent(torch.tensor(sizes), device=points.sizes.device)
    rows, columns, height, width = of_samples.index_select(0, points.sample_of_row).unbind(dim=1)
    uv = torch.cat([sample.uv for sample in batch])
    reading = read_at(uv, grid_hw=(rows, columns), map_hw=(height, width), mode=mode)
    counts = list(points.counts)
    parts = zip(torch.split(reading.rows, counts), torch.split(reading.weights, counts), strict=True)
    return [Reading(rows=of_rows, weights=of_weights) for of_rows, of_weights in parts]


def _points(batch: Batch) -> Padding:
    return Padding.of([len(sample.xyz) for sample in batch], device=batch.samples[0].xyz.device)


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
