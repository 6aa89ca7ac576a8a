"""What a forward-only check of a stage looks at, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ditr.data.batch import Batch, collate
from ditr.data.samples import SampleSet
from ditr.data.scannet_sv import FrameSet
from ditr.features.sources import FeatureSource
from ditr.features.store import Maps
from ditr.model.esam import EsamSingleView
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

    def batch(self, samples: SampleSet, indices: Sequence[int]) -> Batch:
        """These samples of ``plain`` or ``augmented`` as the model reads them, on the device."""
        return self.encode(collate([samples[index] for index in indices]).to(self.device))


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    stage: int
    """1 features, 2 projection, 3 pyramid, 4 injection."""
    name: str
    """Of the check, such as ``uv_error_px``, with the stride where there is one: ``s8_empty_voxels``."""
    value: float | None
    """What was measured; None where the answer is only yes or no."""
    limit: str
    """What it was held against, such as ``<= 0.05`` or ``reported``."""
    passed: bool
    detail: str = ""
    """Which frame, or what to do."""
