"""What a run's samples and its model read of 2D features: maps on disk, or images and what encodes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ditr.progress import Progress
from ditr.spec.entries import GivenEntry
from ditr.spec.feature_maps import is_per_point, map_channels, map_covers, map_shape
from ditr.spec.models import Spec
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ditr.data.batch import Batch
    from ditr.data.dataset import Dataset
    from ditr.data.samples import SampleSet
    from ditr.data.scannet_sv import FrameSet
    from ditr.features.sources import FeatureSource
    from ditr.features.store import Maps


@dataclass(frozen=True, kw_only=True)
class FeatureInputs:
    """The way of 2D features into a run; a 3D-only one has only an ``encode`` that leaves batches as they are."""

    encode: Callable[[Batch], Batch]
    """Gives a batch on the device the maps that are computed online."""
    online: bool = False
    """Whether that is so, and samples have to hold their images."""
    maps: Maps | None = None
    """The stored ones."""
    channels: int | None = None
    shape: tuple[int, int, int] | None = None
    """C, Hp, Wp of every map."""
    map_hw: tuple[int, int] | None = None
    """What a map covers, if that is more than the image."""
    per_point: bool = False
    """Whether a map is of the frame's points, a column each."""
    facts: dict[str, Any] | None = None
    """What the maps are made of, for the provenance."""


def feature_inputs(
    spec: Spec,
    *,
    frames: Sequence[FrameSet],
    dataset: Dataset,
    registry: Registry,
    device: torch.device,
    progress: Progress,
) -> FeatureInputs:
    """Makes the stored maps of ``frames`` that are missing, or loads the source that computes them online.

    A 3D-only spec touches neither.
    """
    from ditr.data.batch import as_it_is

    features = spec.read_features
    if features is None:
        return FeatureInputs(encode=as_it_is)
    entry = registry.features(features.source)
    maps: Maps | None = None
    encode: Callable[[Batch], Batch] = as_it_is
    if features.mode == "online":
        from ditr.features.fused_vit import make_fast
        from ditr.features.online_maps import OnlineMaps
        from ditr.features.sources import load_source

        assert not isinstance(entry, GivenEntry), "precomputed maps are stored ones"
        source = load_source(features, entry=entry, device=device)
        facts = _facts(source)
        facts["form"] = make_fast(source, images=1)  # not compiled: batches of several sizes are encoded
        encode = OnlineMaps(source)
    else:
        from ditr.features.extract import ensure_features

        maps = ensure_features(frames, spec=features, entry=entry, dataset=dataset, device=device, progress=progress)
        facts = maps.manifest() or {}
    return FeatureInputs(
        encode=encode,
        online=features.mode == "online",
        maps=maps,
        channels=map_channels(features, entry),
        shape=map_shape(features, entry),
        map_hw=map_covers(features, entry),
        per_point=is_per_point(entry),
        facts=facts | {"source": features.source, "mode": features.mode},
    )


def sample_set(
    frames: FrameSet,
    *,
    spec: Spec,
    seed: int,
    features: FeatureInputs,
    augmented: bool,
    read: Callable[[str], Tensor] | None = None,
) -> SampleSet:
    """The frames as training reads them, or as evaluation does.

    ``read`` gives a frame's stored map by its id; by default the frame's own.
    """
    from ditr.data.samples import SampleSet

    of_images = spec.read_features.augmentation if spec.read_features and features.online else None
    return SampleSet(
        frames,
        seed=seed,
        voxel_size_m=spec.model.voxel_size_m,
        augmentation=spec.augmentation if augmented else None,
        tokens=read or (features.maps.read if features.maps else None),
        map_hw=features.map_hw,
        per_point=features.per_point,
        images=features.online,
        image_augmentation=of_images if augmented else None,
        esam_compat=spec.esam_compat,
    )


def _facts(source: FeatureSource) -> dict[str, Any]:
    """What computes maps online, in the words of a store's manifest."""
    from ditr.features.extract import code_of

    return {
        "entry": source.entry.model_dump(mode="json"),
        "weights_digest": source.weights_digest(),
        "weights_stamp": source.weights_stamp,
        "features": source.spec.model_dump(mode="json"),
        "shape": list(map_shape(source.spec, source.entry)),
    } | code_of(source.entry)
