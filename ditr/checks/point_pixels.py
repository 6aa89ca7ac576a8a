"""Stage 2, pixels: raw points are pixels of their image, and samples carry just these pixels, augmented or not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ditr.checks.measure import Measurements, in_a_line
from ditr.checks.raw_points import Pixels, colour_errors, move_of, off_whole_px, pixels_of, uv_difference_px
from ditr.checks.subject import Subject
from ditr.checks.tables import PIXELS
from ditr.data.batch import Sample
from ditr.data.frame import Frame
from ditr.data_check.reprojection import measure
from ditr.errors import DitrError
from ditr.progress import Progress
from ditr.spec.feature_maps import is_per_point, map_covers

_FLAT = 1e-3
"""Of a determinant: below, points lie in a plane and have no side."""


def measure_pixels(subject: Subject, *, indices: Sequence[int], progress: Progress) -> Measurements:
    """Raw points, plain samples and augmented ones of these frames; one that cannot be read is counted."""
    found, colours = Measurements(PIXELS), list[np.ndarray]()
    for done, index in enumerate(indices):
        progress("points and pixels", done, len(indices))
        try:
            colours.append(_measure_frame(subject, index, into=found))
        except DitrError as error:
            found.take("frames_unreadable", 1, subject.frames.ids[index], note=in_a_line(error))
    progress("points and pixels", len(indices), len(indices))
    if colours:
        _shift(colours, into=found)
    return found


def _measure_frame(subject: Subject, index: int, *, into: Measurements) -> np.ndarray:
    """Returns the frame's ``colour_errors``."""
    frame = subject.frames.frame(index)
    pixels = pixels_of(frame)
    for name in ("valid_ratio", "boundary_ok"):
        into.take(name, pixels.visible.mean(), frame.id)
    into.take("depth_ok", np.isfinite(pixels.uv[:, 0]).mean(), frame.id)
    into.take("uv_error_px", off_whole_px(pixels), frame.id)
    into.take("lattice_error_px", _off_lattice(frame), frame.id)
    image, plain = subject.frames.image(index), subject.plain[index]
    into.take("valid_ratio", float(plain.uv_valid.float().mean()), frame.id)
    into.take("depth_ok", plain.depth_ok_ratio, frame.id)
    into.take("boundary_ok", plain.boundary_ok_ratio, frame.id)
    into.take("sample_uv_px", uv_difference_px(plain, pixels, mirrored_in=None), frame.id)
    colours = colour_errors(plain, image)
    into.take("colour_error", colours[2, 2], frame.id)
    if subject.spec.fusion.parts:
        extent, covers = _extent(subject, image), plain.map_hw
        into.take("map_extent", covers != extent, frame.id, note="" if covers == extent else f"{covers}, not {extent}")
    _measure_augmented(subject, index, frame=frame, plain=plain, pixels=pixels, image=image, into=into)
    return colours


def _measure_augmented(
    subject: Subject, index: int, *, frame: Frame, plain: Sample, pixels: Pixels, image: np.ndarray, into: Measurements
) -> None:
    moved = subject.augmented[index]
    mirrored = _is_mirrored(moved, image)
    off = uv_difference_px(moved, pixels, mirrored_in=image.shape[1] if mirrored else None)
    by = float((moved.xyz - plain.xyz).norm(dim=1).mean())
    into.take("augmented_uv_px", off, frame.id, note=f"its points are moved by {by:.2f} m on average")
    colours = colour_errors(moved, image[:, ::-1] if mirrored else image)
    into.take("augmented_colour_error", colours[2, 2], frame.id)
    rigid, elastic = move_of(subject.augmented.without_elastic()[index].xyz, frame), move_of(moved.xyz, frame)
    into.take("augmented_rows", rigid.unexplained, frame.id)
    into.take("elastic_rows", elastic.unexplained, frame.id)
    if _mirrors(subject):
        side = rigid.determinant
        other = moved.image is not None and abs(side) > _FLAT and mirrored != (side < 0)
        into.take("mirrored_together", other, frame.id)


def _shift(colours: Sequence[np.ndarray], *, into: Measurements) -> None:
    """All frames together: colours agree best with the points' own pixels, not with those beside."""
    errors = np.mean(colours, axis=0)
    row, column = (int(one) - 2 for one in np.unravel_index(np.argmin(errors), errors.shape))
    best, here = errors.min(), errors[2, 2]
    note = f"{here:.2f} of 255 at no shift; best {best:.2f} at {column} px right, {row} px down"
    into.take("colours_in_place", here <= best, note=note)


def _off_lattice(frame: Frame) -> float:
    """Infinite where the points are no pixels of this camera at all; 0 where there are too few columns to tell."""
    measured = measure(frame.points[:, :3], pose_c2w=frame.pose_c2w, intrinsics=frame.intrinsics)
    if measured.verdict == "none":
        return float("inf")
    return measured.error_px or 0.0


def _extent(subject: Subject, image: np.ndarray) -> tuple[int, int] | None:
    """What a map covers, by the spec and the source's entry; None where points read features of their own."""
    spec, of_image = subject.spec.read_features, (int(image.shape[0]), int(image.shape[1]))
    if spec is None or subject.entry is None:
        return of_image
    return None if is_per_point(subject.entry) else map_covers(spec, subject.entry) or of_image


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
    own, raw = (one.astype(np.float64).mean(axis=2) for one in (sample.image.numpy(), image))
    as_it_is, turned = (float(((own - own.mean()) * (one - raw.mean())).sum()) for one in (raw, raw[:, ::-1]))
    return turned > as_it_is
