"""Training augmentations of the points (docs/reference/esam.md, Pipeline 5; 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ditr.data.elastic import elastic_shift
from ditr.spec.models import AugmentationSpec, ElasticSpec


@dataclass(frozen=True, kw_only=True)
class AugmentedPoints:
    """N augmented points; rows keep their order, so whatever was computed per point before stays theirs."""

    xyz: np.ndarray
    """(N, 3) float32 metres, after flips, rotation, scale, translation and the elastic distortion."""
    mirrored: bool
    """Whether left and right changed places: one of the two flips was drawn and not both, which would be a rotation."""


def augment(
    xyz: np.ndarray, *, spec: AugmentationSpec, voxel_size_m: float, rng: np.random.Generator
) -> AugmentedPoints:
    """Flip, rotate about +z, scale, shift, then distort (N, 3) points in metres of the centred world.

    Every draw comes from ``rng``, the rigid ones first, so that the elastic part changes nothing before it.
    """
    signs = np.where(rng.random(2) < spec.flip_probability, -1.0, 1.0)
    moved = _rigid(xyz.astype(np.float64) * [*signs, 1.0], spec=spec, rng=rng)
    if spec.elastic is not None:
        moved = _elastic(moved, spec=spec.elastic, voxel_size_m=voxel_size_m, rng=rng)
    return AugmentedPoints(xyz=moved.astype(np.float32), mirrored=bool(signs.prod() < 0))


def _rigid(xyz: np.ndarray, *, spec: AugmentationSpec, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(-spec.rotation_rad, spec.rotation_rad)
    scale = rng.uniform(*spec.scale)
    shift = rng.normal(0.0, spec.translation_std_m, 3)
    cos, sin = np.cos(angle), np.sin(angle)
    counter_clockwise = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    return np.asarray(xyz @ counter_clockwise.T * scale + shift)


def _elastic(xyz: np.ndarray, *, spec: ElasticSpec, voxel_size_m: float, rng: np.random.Generator) -> np.ndarray:
    """One coin for both granularities; the coarse distortion acts on the finely distorted points."""
    if rng.random() >= spec.probability:
        return xyz
    voxels = xyz / voxel_size_m
    for granularity, magnitude in zip(spec.granularity, spec.magnitude, strict=True):
        voxels = voxels + elastic_shift(voxels, granularity=granularity, magnitude=magnitude, rng=rng)
    return voxels * voxel_size_m
