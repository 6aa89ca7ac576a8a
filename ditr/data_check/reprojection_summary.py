"""The reprojection of a whole data set: its histogram, the frames over the limit, and the camera that would fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ditr.data_check.reprojection import EDGES_PX, LIMIT_PX, MAX_SCALE_ERROR, FrameReprojection

ADVICE_PX = 0.1
"""Frames with a larger median error have other intrinsics than declared."""
_EXAMPLES = 10
_BAR = 40
_PARAMETERS = ("fx", "fy", "cx", "cy")


@dataclass(frozen=True, kw_only=True)
class Reprojection:
    """Of all frames whose points and pose could be read; JSON can hold all of it."""

    frames: int
    points: tuple[int, ...]
    """Points by error, bins of ``EDGES_PX``, in frames with a lattice."""
    medians: tuple[int, ...]
    """Frames by the median error of their points, the same bins."""
    none: int
    """Frames whose points are not pixels of the declared camera in its pose."""
    unclear: int
    """Frames with too few pixel columns or rows to tell."""
    refused: int
    """Frames without a lattice or with a median error over the limit."""
    examples: tuple[str, ...]
    """The first ten of those, with what is wrong."""
    fitting: tuple[tuple[float, float, float], ...]
    """fx, fy, cx, cy that points were made with, in frames over ``ADVICE_PX``: median, lowest, highest; empty without
    such frames."""
    declared: tuple[tuple[float, float], ...]
    """What those frames declare: lowest and highest."""


def summarise(frames: Iterable[tuple[str, FrameReprojection, tuple[float, ...]]]) -> Reprojection:
    """Puts together frames: id, what was measured, declared fx, fy, cx, cy."""
    measured = list(frames)
    found = [reprojection for _, reprojection, _ in measured if reprojection.verdict == "lattice"]
    points = np.sum([reprojection.points for reprojection in found], axis=0) if found else np.zeros(len(EDGES_PX) - 1)
    medians = np.histogram([reprojection.error_px or 0.0 for reprojection in found], EDGES_PX)[0]
    wrong = [text for name, reprojection, _ in measured if (text := _wrong(name, reprojection))]
    off = [(r.intrinsics, camera) for _, r, camera in measured if r.error_px is not None and r.error_px > ADVICE_PX]
    fitting = np.array([[getattr(intrinsics, name) for name in _PARAMETERS] for intrinsics, _ in off])
    declared = np.array([camera for _, camera in off])
    return Reprojection(
        frames=len(measured),
        points=tuple(int(count) for count in points),
        medians=tuple(medians.tolist()),
        none=sum(reprojection.verdict == "none" for _, reprojection, _ in measured),
        unclear=sum(reprojection.verdict == "unclear" for _, reprojection, _ in measured),
        refused=len(wrong),
        examples=tuple(wrong[:_EXAMPLES]),
        fitting=tuple((float(np.median(c)), float(c.min()), float(c.max())) for c in fitting.T),
        declared=tuple((float(c.min()), float(c.max())) for c in declared.T),
    )


def histogram(reprojection: Reprojection) -> list[str]:
    """Lines for a terminal: errors of points, medians of frames, and the camera that fits where another is declared."""
    total = max(sum(reprojection.points), 1)
    lines = [f"{'error px':>12}  {'points':>12}  {'frames':>7}"]
    for low, high, points, medians in zip(
        EDGES_PX, EDGES_PX[1:], reprojection.points, reprojection.medians, strict=False
    ):
        bounds = f"{low:g} - {high:g}" if np.isfinite(high) else f"over {low:g}"
        bar = "#" * (max(1, round(_BAR * points / total)) if points else 0)
        lines.append(f"{bounds:>12}  {points:>12}  {medians:>7}  {bar}".rstrip())
    lines.append(f"{'no lattice':>12}  {'-':>12}  {reprojection.none:>7}")
    if reprojection.unclear:
        lines.append(f"{'cannot tell':>12}  {'-':>12}  {reprojection.unclear:>7}")
    return lines + _advice(reprojection)


def _wrong(name: str, reprojection: FrameReprojection) -> str:
    if reprojection.verdict == "none":
        return f"{name}: its points are not pixels of the declared camera in the frame's pose"
    if reprojection.error_px is not None and reprojection.error_px > LIMIT_PX:
        return f"{name}: the median point is declared {reprojection.error_px:.2f} px off its pixel"
    return ""


def _advice(reprojection: Reprojection) -> list[str]:
    """What to declare; nothing where everything agrees."""
    lines = []
    if reprojection.fitting:
        lines.append(f"frames over {ADVICE_PX:g} px were made with (principal point up to whole pixels):")
        for name, (median, low, high), declared in zip(
            _PARAMETERS, reprojection.fitting, reprojection.declared, strict=True
        ):
            says = f"{declared[0]:g}" if declared[0] == declared[1] else f"{declared[0]:g} to {declared[1]:g}"
            lines.append(f"  {name} {median:.3f} ({low:.3f} to {high:.3f}), declared {says}")
        lines.append("Declare these: for all in the data set's entry, for single scenes in intrinsics/<scene>.txt.")
    if reprojection.none:
        lines.append(
            "no lattice: the pose is of another frame or not camera to world, depth was resampled, or the focal length "
            f"is more than {MAX_SCALE_ERROR:.0%} off."
        )
    return lines
