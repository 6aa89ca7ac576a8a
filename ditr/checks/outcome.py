"""What a forward-only check of a stage looks at, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ditr.data.batch import Batch, collate
from ditr.data.samples import SampleSet
from ditr.data.scannet_sv import FrameSet
from ditr.errors import DitrError
from ditr.features.sources import FeatureSource
from ditr.features.store import Maps
from ditr.model.esam import EsamSingleView
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


def at_most(stage: int, name: str, value: float, *, limit: float, detail: str = "", fix: str = "") -> Check:
    """Passes up to the limit; never with NaN. ``fix`` is told where it fails."""
    return _held(stage, name, value, limit=f"<= {limit:g}", passed=value <= limit, detail=detail, fix=fix)


def at_least(stage: int, name: str, value: float, *, limit: float, detail: str = "", fix: str = "") -> Check:
    """Passes from the limit on; never with NaN. ``fix`` is told where it fails."""
    return _held(stage, name, value, limit=f">= {limit:g}", passed=value >= limit, detail=detail, fix=fix)


def equal(stage: int, name: str, value: float, *, expected: float, detail: str = "", fix: str = "") -> Check:
    """Passes with this number only. ``fix`` is told where it fails."""
    limit = f"= {expected:.12g}"
    return _held(stage, name, value, limit=limit, passed=value == expected, detail=detail, fix=fix)


def within(
    stage: int, name: str, value: float, *, limits: tuple[float, float], detail: str = "", fix: str = ""
) -> Check:
    """Passes between the limits; never with NaN. ``fix`` is told where it fails."""
    low, high = limits
    return _held(stage, name, value, limit=f"{low:g} to {high:g}", passed=low <= value <= high, detail=detail, fix=fix)


def reported(stage: int, name: str, value: float, *, detail: str = "") -> Check:
    """A number that is held against nothing."""
    return Check(stage=stage, name=name, value=value, limit="reported", passed=True, detail=detail)


def yes_or_no(stage: int, name: str, passed: bool, *, limit: str, detail: str = "", fix: str = "") -> Check:
    """No number, only whether what ``limit`` says is so. ``fix`` is told where it is not."""
    return _held(stage, name, None, limit=limit, passed=passed, detail=detail, fix=fix)


def failed(stage: int, name: str, error: DitrError, *, limit: str) -> Check:
    """What was to be measured could not be."""
    return Check(stage=stage, name=name, value=None, limit=limit, passed=False, detail=told(error))


def told(error: DitrError) -> str:
    """Where, what and the fix, in one line."""
    return f"{error.where}: {error.what}; {error.fix}"


def first_of(wrong: Mapping[str, str]) -> str:
    """The first frame and what is wrong with it; empty if nothing is."""
    return next((what if frame in what else f"{frame}: {what}" for frame, what in wrong.items()), "")


def largest(values: Mapping[str, float]) -> tuple[float, str]:
    """The largest value by frame id, NaN above all, and the frame's id; NaN where there is none."""
    if not values:
        return math.nan, "no frame at all"
    frame = max(values, key=lambda one: (math.isnan(values[one]), values[one]))
    return values[frame], frame


def smallest(values: Mapping[str, float]) -> tuple[float, str]:
    """The smallest value by frame id, NaN below all, and the frame's id; NaN where there is none."""
    value, frame = largest({frame: -value for frame, value in values.items()})
    return -value, frame


def _held(stage: int, name: str, value: float | None, *, limit: str, passed: bool, detail: str, fix: str) -> Check:
    if value is not None and math.isnan(value):
        fix = "not measured, other checks tell why"
    told = "; ".join(part for part in (detail, "" if passed else fix) if part)
    return Check(stage=stage, name=name, value=value, limit=limit, passed=passed, detail=told)
