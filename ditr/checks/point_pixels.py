"""Stage 2, pixels: raw points are pixels of their image, and samples carry just these pixels, augmented or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ditr.checks.outcome import Check, Subject, at_least, at_most, first_of, largest, smallest, told, yes_or_no
from ditr.checks.raw_points import colour_errors, move_of, off_whole_px, pixels_of, uv_difference_px
from ditr.data.batch import Sample
from ditr.data.frame import Frame
from ditr.data_check.reprojection import measure
from ditr.errors import DitrError
from ditr.progress import Progress
from ditr.spec.feature_maps import map_covers

_CAMERA = "correct the pose (it is camera to world), the intrinsics, or the size that they are for"
_SAMPLES = "samples must carry the pixels of the raw points, u before v, whatever augmentation moves"
_FLAT = 1e-3
"""Of a determinant: below, points lie in a plane and have no side."""


@dataclass
class _Measured:
    """Of every frame by id, as it comes in."""

    unreadable: dict[str, str] = field(default_factory=dict)
    valid: dict[str, float] = field(default_factory=dict)
    depth_ok: dict[str, float] = field(default_factory=dict)
    boundary_ok: dict[str, float] = field(default_factory=dict)
    off_whole: dict[str, float] = field(default_factory=dict)
    off_lattice: dict[str, float] = field(default_factory=dict)
    uv: dict[str, float] = field(default_factory=dict)
    uv_augmented: dict[str, float] = field(default_factory=dict)
    colours: dict[str, np.ndarray] = field(default_factory=dict)
    colours_augmented: dict[str, float] = field(default_factory=dict)
    moved_m: dict[str, float] = field(default_factory=dict)
    mixed: dict[str, float] = field(default_factory=dict)
    mixed_elastic: dict[str, float] = field(default_factory=dict)
    other_extent: dict[str, str] = field(default_factory=dict)
    other_side: list[str] = field(default_factory=list)


def check_pixels(subject: Subject, *, indices: Sequence[int], progress: Progress) -> Iterator[Check]:
    """Raw points, plain samples and augmented ones of these frames; one that cannot be read is counted."""
    found = _Measured()
    for done, index in enumerate(indices):
        progress("points and pixels", done, len(indices))
        try:
            _look(subject, index, found)
        except DitrError as error:
            found.unreadable[subject.frames.ids[index]] = told(error)
    progress("points and pixels", len(indices), len(indices))
    yield at_most(2, "frames_unreadable", len(found.unreadable), limit=0, detail=first_of(found.unreadable))
    yield from _of_camera(subject, found)
    yield from _of_samples(subject, found)


def _look(subject: Subject, index: int, found: _Measured) -> None:
    frame = subject.frames.frame(index)
    pixels = pixels_of(frame)
    found.valid[frame.id] = float(pixels.seen.mean())  # until the sample says it itself
    found.depth_ok[frame.id] = float(np.isfinite(pixels.uv[:, 0]).mean())
    found.boundary_ok[frame.id] = found.valid[frame.id]
    found.off_whole[frame.id] = off_whole_px(pixels)
    found.off_lattice[frame.id] = _off_lattice(frame)
    image = subject.frames.image(index)
    plain = subject.plain[index]
    found.valid[frame.id] = float(plain.uv_valid.float().mean())
    found.depth_ok[frame.id], found.boundary_ok[frame.id] = plain.depth_ok_ratio, plain.boundary_ok_ratio
    found.uv[frame.id] = uv_difference_px(plain, pixels, mirrored_in=None)
    found.colours[frame.id] = colour_errors(plain, image)
    if (extent := _extent(subject, image)) != tuple(plain.map_hw):
        found.other_extent[frame.id] = f"{tuple(plain.map_hw)}, not {extent}"
    moved = subject.augmented[index]
    mirrored = _is_mirrored(moved, image)
    found.uv_augmented[frame.id] = uv_difference_px(moved, pixels, mirrored_in=image.shape[1] if mirrored else None)
    found.colours_augmented[frame.id] = float(colour_errors(moved, image[:, ::-1] if mirrored else image)[2, 2])
    found.moved_m[frame.id] = float((moved.xyz - plain.xyz).norm(dim=1).mean())
    rigid, elastic = move_of(subject.augmented.without_elastic()[index].xyz, frame), move_of(moved.xyz, frame)
    found.mixed[frame.id], found.mixed_elastic[frame.id] = rigid.unexplained, elastic.unexplained
    side = rigid.determinant
    if moved.image is not None and _mirrors(subject) and abs(side) > _FLAT and mirrored != (side < 0):
        found.other_side.append(frame.id)


def _of_camera(subject: Subject, found: _Measured) -> Iterator[Check]:
    limits = subject.spec.checks
    for name, values in (
        ("valid_ratio", found.valid),
        ("depth_ok", found.depth_ok),
        ("boundary_ok", found.boundary_ok),
    ):
        value, frame = smallest(values)
        yield at_least(2, name, value, limit=limits.min_valid_ratio, detail=f"least in {frame}", fix=_CAMERA)
    value, frame = largest(found.off_whole)
    yield at_most(2, "uv_error_px", value, limit=limits.max_uv_error_px, detail=f"most in {frame}", fix=_CAMERA)
    value, frame = largest(found.off_lattice)
    yield at_most(2, "lattice_error_px", value, limit=limits.max_uv_error_px, detail=f"most in {frame}", fix=_CAMERA)


def _of_samples(subject: Subject, found: _Measured) -> Iterator[Check]:
    limits = subject.spec.checks
    value, frame = largest(found.uv)
    yield at_most(2, "sample_uv_px", value, limit=limits.max_uv_error_px, detail=f"most in {frame}", fix=_SAMPLES)
    value, frame = largest({frame: float(errors[2, 2]) for frame, errors in found.colours.items()})
    fix = f"{_CAMERA}; or the image is another frame's, or its channels are in another order"
    yield at_most(2, "colour_error", value, limit=limits.max_colour_error, detail=f"most in {frame}", fix=fix)
    yield _shift(found)
    value, frame = largest(found.uv_augmented)
    by = f"{np.mean([*found.moved_m.values()]):.2f} m" if found.moved_m else "nothing"
    detail = f"most in {frame}; points are moved by {by} on average"
    yield at_most(2, "augmented_uv_px", value, limit=limits.max_uv_error_px, detail=detail, fix=_SAMPLES)
    value, frame = largest(found.colours_augmented)
    limit, name = limits.max_colour_error, "augmented_colour_error"
    yield at_most(2, name, value, limit=limit, detail=f"most in {frame}", fix=_SAMPLES)
    fix = "augmentation must leave every point in its row: superpoints, labels and pixels stay where they are"
    value, frame = largest(found.mixed)
    yield at_most(2, "augmented_rows", value, limit=limits.max_row_error, detail=f"most in {frame}", fix=fix)
    value, frame = largest(found.mixed_elastic)
    yield at_most(2, "elastic_rows", value, limit=limits.max_elastic_row_error, detail=f"most in {frame}", fix=fix)
    if subject.spec.fusion.parts:
        fix = "the samples must say what the map covers: the image, the padded canvas, or covers of the registry entry"
        yield at_most(2, "map_extent", len(found.other_extent), limit=0, detail=first_of(found.other_extent), fix=fix)
    if _mirrors(subject):
        sides = found.other_side
        fix = "image and points must be mirrored together"
        yield at_most(2, "mirrored_together", len(sides), limit=0, detail=", ".join(sides[:1]), fix=fix)


def _shift(found: _Measured) -> Check:
    """All frames together: colours agree best with the points' own pixels, not with those beside."""
    name, limit = "colours_in_place", "best at no shift"
    if not found.colours:
        return yes_or_no(2, name, False, limit=limit, detail="no frame could be looked at")
    errors = np.mean([*found.colours.values()], axis=0)
    row, column = (int(one) - 2 for one in np.unravel_index(np.argmin(errors), errors.shape))
    best, here = errors.min(), errors[2, 2]
    detail = f"{here:.2f} of 255 at no shift; best {best:.2f} at {column} px right, {row} px down"
    fix = "correct the principal point: it is for pixel centres at whole numbers"
    return yes_or_no(2, name, bool(here <= best), limit=limit, detail=detail, fix=fix)


def _off_lattice(frame: Frame) -> float:
    """Infinite where the points are no pixels of this camera at all; 0 where there are too few columns to tell."""
    measured = measure(frame.points[:, :3], pose_c2w=frame.pose_c2w, intrinsics=frame.intrinsics)
    if measured.verdict == "none":
        return float("inf")
    return measured.error_px or 0.0


def _extent(subject: Subject, image: np.ndarray) -> tuple[int, int]:
    """What a map covers, by the spec and the source's entry."""
    spec, of_image = subject.spec.read_features, (int(image.shape[0]), int(image.shape[1]))
    if spec is None or subject.entry is None:
        return of_image
    return map_covers(spec, subject.entry) or of_image


def _mirrors(subject: Subject) -> bool:
    """Whether training mirrors images with their points."""
    spec = subject.spec.read_features
    if spec is None or spec.mode != "online" or spec.augmentation is None or subject.spec.augmentation is None:
        return False
    return spec.augmentation.mirror_with_points


def _is_mirrored(sample: Sample, image: np.ndarray) -> bool:
    """Whether the sample's own image is the frame's from left to right, in whatever light."""
    if sample.image is None:
        return False
    seen, raw = (one.astype(np.float64).mean(axis=2) for one in (sample.image.numpy(), image))
    as_it_is, turned = (float(((seen - seen.mean()) * (one - raw.mean())).sum()) for one in (raw, raw[:, ::-1]))
    return turned > as_it_is
