"""Four frames of embedded rooms, a tiny transformer's maps of them, and a tiny model: a subject that passes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from ditr.checks.subject import Subject
from ditr.data.batch import Batch, as_it_is
from ditr.data.dataset import Dataset
from ditr.data.samples import SampleSet
from ditr.data.scannet_sv import FrameSet
from ditr.features.online_maps import OnlineMaps
from ditr.features.sources import FeatureSource, load_source
from ditr.features.store import FeatureStore, Maps
from ditr.model.esam import EsamSingleView
from ditr.spec.entries import GivenEntry
from ditr.spec.feature_maps import Source, is_per_point, map_channels, map_covers, map_shape, weights_of
from ditr.spec.fusion import BiFusionSpec, FusionSpec, InjectionSpec
from ditr.spec.models import BackboneSpec, DatasetSpec, DecoderSpec, FeatureSpec, ModelSpec, Spec
from tests.reference.tiny_sources import VITS

CPU = torch.device("cpu")
ENTRY = VITS["dinov2_reg4"]
SPEC = Spec(
    name="tiny",
    dataset=DatasetSpec(name="synthrooms_tiny"),
    features=FeatureSpec(source="tiny_vit", input_size=(168, 224)),
    model=ModelSpec(
        voxel_size_m=0.1,
        backbone=BackboneSpec(planes=(4, 6, 8, 10, 12, 10, 8, 6), layers=(1,) * 8, stem_channels=5),
        decoder=DecoderSpec(width=16, heads=2, feedforward=24),
    ),
    fusion=FusionSpec(bifusion=BiFusionSpec(width=16), injection=InjectionSpec(scales=(8, 1))),
)


@dataclass
class World:
    """What a subject is made of; a test spoils a part of it before."""

    folder: Path
    """For maps, the test's own."""
    frames: FrameSet
    digest: str
    spec: Spec = SPEC
    entry: Source = ENTRY
    maps: Maps | None = None
    load: Callable[[], FeatureSource] | None = None
    model: EsamSingleView | None = None
    encode: Callable[[Batch], Batch] = as_it_is
    sampled: int = 10

    @property
    def features(self) -> FeatureSpec:
        assert self.spec.features is not None
        return self.spec.features

    @property
    def store(self) -> FeatureStore:
        assert isinstance(self.maps, FeatureStore)
        return self.maps

    def change(self, **changes: object) -> None:
        """Fields of the spec's features."""
        self.spec = self.spec.model_copy(update={"features": self.features.model_copy(update=changes)})

    def source(self) -> FeatureSource:
        assert not isinstance(self.entry, GivenEntry)
        return load_source(self.features, entry=self.entry, device=CPU)

    def extract(self) -> None:
        """Maps by the source as it is now, and a manifest."""
        source = self.source()
        shape = map_shape(self.features, self.entry)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.maps, self.load = FeatureStore(self.folder, shape=shape), self.source
        for index, frame in enumerate(self.frames.ids):
            self.store.write(frame, source.encode(self.frames.image(index)[None])[0])
        self.store.write_manifest(self.manifest(source))

    def manifest(self, source: FeatureSource) -> dict[str, object]:
        return {
            "source": self.features.source,
            "input_size": list(self.features.input_size or ()),
            "resize": self.features.resize,
            "layers": list(self.features.layers),
            "computed_in": self.features.dtype,
            "computed_on": "cpu",
            "dataset": self.spec.dataset.name,
            "dataset_digest": self.digest,
            "shape": list(map_shape(self.features, self.entry)),
            "dtype": "float16",
            "weights_digest": source.weights_digest(),
            "weights": weights_of(self.features, source.entry).model_dump(mode="json"),
        }

    def go_online(self) -> None:
        """No maps on disk."""
        self.change(mode="online")
        self.maps, self.load = None, self.source
        self.encode = OnlineMaps(self.source())

    def build(self) -> EsamSingleView:
        """The model, always from the same torch seed."""
        if self.model is None:
            torch.manual_seed(7)
            self.model = EsamSingleView(
                self.spec.model,
                fusion=self.spec.fusion,
                feature_channels=map_channels(self.features, self.entry) if self.spec.fusion.parts else None,
                sampling=self.features.sampling if self.spec.features else "bilinear",
                query_fraction=0.5,
            )
        return self.model.eval()

    def samples(self, *, augmented: bool) -> SampleSet:
        fusion = bool(self.spec.fusion.parts)
        online = fusion and self.features.mode == "online"
        return SampleSet(
            self.frames,
            seed=3,
            voxel_size_m=self.spec.model.voxel_size_m,
            augmentation=self.spec.augmentation if augmented else None,
            tokens=self.maps.read if fusion and self.maps is not None else None,
            map_hw=map_covers(self.features, self.entry) if fusion else None,
            per_point=fusion and is_per_point(self.entry),
            images=online,
            image_augmentation=self.features.augmentation if augmented and online else None,
        )

    def subject(self) -> Subject:
        fusion = bool(self.spec.fusion.parts)
        return Subject(
            spec=self.spec,
            frames=self.frames,
            plain=self.samples(augmented=False),
            augmented=self.samples(augmented=True),
            maps=self.maps if fusion else None,
            source=self.load if fusion else None,
            model=self.build(),
            device=CPU,
            seed=3,
            encode=self.encode,
            entry=self.entry if fusion else None,
            dataset_digest=self.digest,
            sampled=self.sampled,
        )


@pytest.fixture(scope="session")
def sound_maps(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of maps that nobody changes."""
    world = World(folder=tmp_path_factory.mktemp("maps") / "tiny", frames=all_frames(tiny_dataset), digest="d1")
    world.extract()
    return world.folder


@pytest.fixture
def world(tiny_dataset: Dataset, sound_maps: Path, tmp_path: Path) -> World:
    """Its maps are a copy."""
    made = World(folder=tmp_path / "maps", frames=all_frames(tiny_dataset), digest="d1")
    shutil.copytree(sound_maps, made.folder)
    made.maps, made.load = FeatureStore(made.folder, shape=map_shape(made.features, ENTRY)), made.source
    return made


def all_frames(dataset: Dataset) -> FrameSet:
    """Of both splits."""
    train, val = dataset.train, dataset.val
    infos = replace(train.infos, frames=(*train.infos.frames, *val.infos.frames))
    return FrameSet(train.root, infos=infos, intrinsics=train.intrinsics)
