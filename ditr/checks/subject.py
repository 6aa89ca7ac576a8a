"""What the stages of a check look at: a spec's frames, maps and model, as a run would use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ditr.data.batch import Batch, collate
from ditr.data.samples import SampleSet
from ditr.data.scannet_sv import FrameSet
from ditr.features.sources import FeatureSource
from ditr.features.store import Maps
from ditr.model.esam import EsamSingleView
from ditr.seeds import derive_seed
from ditr.spec.feature_maps import Source
from ditr.spec.models import Spec


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A spec's frames, maps and model, as a run would use them."""

    spec: Spec
    frames: FrameSet
    """The frames to look at."""
    plain: SampleSet
    """Those frames without augmentation, in the same order."""
    augmented: SampleSet
    """Those frames as training would read them, in the same order."""
    maps: Maps | None
    """Of the frames; None where they are computed online, or nothing reads any."""
    source: Callable[[], FeatureSource] | None
    """Loads what computes maps; None where they are precomputed, or nothing reads any."""
    model: EsamSingleView
    """With its starting weights, on the device."""
    device: torch.device
    seed: int
    encode: Callable[[Batch], Batch]
    """Puts 2D features into a batch on the device where they are computed online; else it is the identity."""
    entry: Source | None
    """The registry entry of the 2D source; None where nothing reads any."""
    dataset_digest: str
    """Of the data set that the frames are of, which the maps must be of too."""
    sampled: int
    """How many of the frames are looked at closely: encoded again, compared with images."""

    def batch(self, samples: SampleSet, indices: Sequence[int]) -> Batch:
        """These samples of ``plain`` or ``augmented`` as the model reads them, on the device."""
        return self.encode(collate([samples[index] for index in indices]).to(self.device))

    def close_frames(self) -> list[int]:
        """Indices of the frames that are looked at closely, in order; drawn from the seed."""
        count = min(len(self.frames), self.sampled)
        draw = np.random.default_rng(derive_seed(self.seed, "check", "closely"))
        return sorted(draw.choice(len(self.frames), size=count, replace=False).tolist())
