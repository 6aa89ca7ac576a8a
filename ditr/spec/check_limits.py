"""The limits of ``ditr check``, a part of the spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ditr.spec.numbers import Count, NonNegative, Positive, Probability, Range
from ditr.spec.part import Part


class ChecksSpec(Part):
    """What `ditr check` holds a spec against before any training; changes no number of a run."""

    min_valid_ratio: Probability = 0.95
    """Least share of a frame's points that read a 2D feature."""
    max_uv_error_px: NonNegative = 0.05
    """Most that a raw point's pixel may be off a whole one, as points made of pixels are not."""
    max_colour_error: NonNegative = 3.0
    """Largest mean difference between the colours of points and of their pixels, of 255."""
    max_map_error: NonNegative = 0.02
    """Largest relative difference between a map and the same map computed again."""
    min_map_variation: NonNegative = 0.01
    """Least relative difference between a map and its mean over the tokens: a constant map tells points nothing."""
    min_own_image: Probability = 0.95
    """Least share of the maps that fit their own image, upright and in place, better than any other image."""
    max_fit_beside: NonNegative = 1.05
    """How well maps may fit their images half a token beside or a token larger, relative to how they fit in place."""
    max_read_error_tokens: NonNegative = 0.05
    """Most that a point may read beside its pixel's place in the map; half a token more where sampling is nearest."""
    max_batch_error: NonNegative = 0.01
    """Largest relative difference between what the model gives for frames in one batch and for each alone."""
    min_map_effect: NonNegative = 1e-4
    """Least relative change of the output when a frame's map is turned by half; far above rounding."""
    max_row_error: NonNegative = 1e-6
    """Largest share of variance by which augmented points may not be the raw ones flipped, turned, scaled and shifted,
    row by row."""
    max_elastic_row_error: NonNegative = 0.5
    """The same with the elastic distortion, which is smooth: points in other rows are not."""
    max_level_error: NonNegative = 1e-3
    """Largest difference between a level of the pyramid, or what is added of it, and the same made by grouping alone,
    relative to its largest value."""
    max_empty_voxels: Probability = 0.05
    """Largest share of voxels without a 2D feature, at any stride."""
    gate_range: Annotated[tuple[Probability, Probability], Field(strict=False)] = (0.02, 0.98)
    """Bounds of the gate's mean share of 2D and of 3D."""
    doubling_range: Range = (1.5, 2.5)
    """Bounds of how much more is added when a small deviation from the zero start doubles; a norm behind a zero layer
    answers the same to both."""
    steps: Count = 2
    """Updates of the added parts alone, on a copy, after which every level must change its activation."""
    max_forward_s: Positive | None = None
    """Most seconds that a frame's forward pass may take; null only reports them."""
    max_forward_mb: Positive | None = None
    """Most memory in MiB that it may take; null only reports it."""
