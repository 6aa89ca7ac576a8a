"""What maps a spec's 2D source gives: channels, rows and columns, what they cover, and whose weights made them."""

from __future__ import annotations

from ditr.spec.entries import GivenEntry, NetworkEntry, PointsEntry, PrecomputedEntry, VitEntry, Weights
from ditr.spec.models import FeatureSpec, OwnWeights

Source = NetworkEntry | GivenEntry


def map_channels(spec: FeatureSpec, entry: Source) -> int:
    """C of a point's 2D feature."""
    return entry.channels * (len(spec.layers) if isinstance(entry, VitEntry) else 1)


def map_shape(spec: FeatureSpec, entry: Source) -> tuple[int, int, int]:
    """C, Hp, Wp of a map; the input size is a multiple of the patch in every spec that loads.

    One feature a point is a map of one row with as many columns as the frame has points: here it has one.
    """
    if isinstance(entry, GivenEntry):
        return given_shape(entry)
    assert spec.input_size is not None, "a spec of a computed source without an input size does not load"
    height, width = spec.input_size
    return map_channels(spec, entry), height // entry.patch, width // entry.patch


def given_shape(entry: GivenEntry) -> tuple[int, int, int]:
    """``map_shape`` of what nobody computes here."""
    return (entry.channels, 1, 1) if isinstance(entry, PointsEntry) else (entry.channels, entry.rows, entry.columns)


def map_covers(spec: FeatureSpec, entry: Source) -> tuple[int, int] | None:
    """Height and width in image pixels that a map covers from the top left corner; None is just the image."""
    if isinstance(entry, PrecomputedEntry):
        return entry.covers
    return spec.input_size if spec.resize == "pad" else None


def is_per_point(entry: Source) -> bool:
    """Whether every point has a feature of its own, and reads it wherever its pixel is."""
    return isinstance(entry, PointsEntry)


def weights_of(spec: FeatureSpec, entry: NetworkEntry) -> Weights | OwnWeights:
    """The weights of the spec, else those of the entry."""
    return spec.weights or entry.weights
