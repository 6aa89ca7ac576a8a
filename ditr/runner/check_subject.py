"""What a check of a spec looks at: some frames of the data set, their maps, and the model before any training."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from ditr.progress import Progress
from ditr.runner.feature_inputs import FeatureInputs, feature_inputs, sample_set
from ditr.runner.inputs import Inputs, LoadedWeights, build_model, fresh_model
from ditr.seeds import derive_seed
from ditr.spec.entries import GivenEntry
from ditr.spec.models import Spec
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    import torch

    from ditr.checks.subject import Subject
    from ditr.data.dataset import Dataset
    from ditr.data.scannet_sv import FrameSet
    from ditr.features.sources import FeatureSource
    from ditr.model.esam import EsamSingleView


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """What of a spec is to be checked."""

    stages: tuple[int, ...] = (1, 2, 3, 4)
    frames: int = 10
    """How many are looked at."""
    every_map: bool = False
    """Look at the map of every frame; none is made."""


@dataclass(frozen=True, kw_only=True)
class PreparedSubject:
    """A subject and where it comes from."""

    subject: Subject
    inputs: Inputs
    """Of the subject's frames."""
    start: LoadedWeights | None
    """None where no checkpoint was loaded."""


def prepare_check(
    spec: Spec,
    *,
    asked: CheckRequest,
    registry: Registry,
    device: torch.device,
    progress: Progress,
    say: Callable[[str], None],
) -> PreparedSubject:
    """Opens the data as a run does, and makes what is missing of the chosen frames' maps, but of no others.

    Raises
    ------
    DitrError: what the spec names is missing or does not fit.
    """
    from ditr.checks.subject import Subject
    from ditr.data_check.screening import open_screened

    screened = open_screened(spec.dataset, registry=registry, progress=progress)
    dataset, seed = screened.dataset, spec.seeds[0]
    total = len(dataset)
    frames = chosen_frames(dataset, count=total if asked.every_map else asked.frames, seed=seed)
    say(f"  {len(frames)} of the {total} frames of {dataset.name}, {' and '.join(dataset.splits)} together")
    features = feature_inputs(
        spec,
        frames=() if asked.every_map else (frames,),
        dataset=dataset,
        registry=registry,
        device=device,
        progress=progress,
    )
    model, start = _model(spec, asked=asked, registry=registry, features=features)
    plain = sample_set(frames, spec=spec, seed=seed, features=features, augmented=False)
    augmented = sample_set(frames, spec=spec, seed=seed, features=features, augmented=True)
    subject = Subject(
        spec=spec,
        frames=frames,
        plain=plain,
        augmented=augmented,
        maps=features.maps,
        source=_source(spec, registry=registry, device=device),
        model=model.to(device).eval(),
        device=device,
        seed=seed,
        encode=features.encode,
        entry=registry.features(spec.read_features.source) if spec.read_features else None,
        dataset_digest=dataset.digest,
        sampled=min(asked.frames, len(frames)),
    )
    inputs = Inputs(
        dataset=dataset,
        train=augmented,
        evaluated=plain,
        encode=features.encode,
        split=" and ".join(dataset.splits),
        split_frames=total,
        feature_channels=features.channels,
        features=features.facts,
        excluded=screened.excluded,
    )
    return PreparedSubject(subject=subject, inputs=inputs, start=start)


def chosen_frames(dataset: Dataset, *, count: int, seed: int) -> FrameSet:
    """``count`` frames of all splits together: these are cut into so many stretches, and one is drawn of each."""
    first, *_ = dataset.splits.values()
    infos = tuple(info for frames in dataset.splits.values() for info in frames.infos.frames)
    count = min(count, len(infos))
    draw = random.Random(derive_seed(seed, "check"))
    bounds = [len(infos) * part // count for part in range(count + 1)]
    drawn = [infos[draw.randrange(start, stop)] for start, stop in pairwise(bounds)]
    return first.with_infos(drawn)


def _model(
    spec: Spec, *, asked: CheckRequest, registry: Registry, features: FeatureInputs
) -> tuple[EsamSingleView, LoadedWeights | None]:
    seed, channels = spec.seeds[0], features.channels
    if set(asked.stages) == {1}:  # maps are looked at without the model, whose checkpoint need not be there
        return fresh_model(spec, seed=seed, feature_channels=channels), None
    return build_model(spec, seed=seed, registry=registry, feature_channels=channels)


def _source(spec: Spec, *, registry: Registry, device: torch.device) -> Callable[[], FeatureSource] | None:
    features = spec.read_features
    if features is None:
        return None
    entry = registry.features(features.source)
    if isinstance(entry, GivenEntry):
        return None

    def load() -> FeatureSource:
        from ditr.features.sources import load_source

        return load_source(features, entry=entry, device=device)

    return load
