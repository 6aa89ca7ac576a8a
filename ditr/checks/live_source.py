"""Stage 1, the source as it is now: it gives the maps that are stored, and every token is of its own patch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ditr.checks.measure import Measurements
from ditr.checks.subject import Subject
from ditr.checks.tables import RECOMPUTED, TOKENS
from ditr.errors import Code, DitrError
from ditr.features.sources import FeatureSource
from ditr.progress import Progress
from ditr.spec.entries import VitEntry
from ditr.spec.feature_maps import map_shape

_PROBES = ((0.1, 0.7), (0.4, 0.2), (0.6, 0.9), (0.9, 0.4))
"""Patches that are painted, as shares of the visible rows and columns: a grid that is turned or moved has them
elsewhere."""


def encode(source: FeatureSource, images: np.ndarray) -> Tensor:
    """What the source gives for the images; ``DitrError`` also where the network itself fails."""
    try:
        return source.encode(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise DitrError(
            f"the source cannot encode an image ({(str(error) or type(error).__name__).splitlines()[0]})",
            code=Code.FEATURES,
            where=source.spec.source,
            fix="correct patch, prefix_tokens or channels of its registry entry, or features.input_size in the spec",
        ) from error


def measure_source(
    subject: Subject, *, maps: Mapping[int, Tensor], source: FeatureSource, progress: Progress
) -> Iterator[Measurements]:
    """``maps`` are the stored ones of some frames, or what the source just gave; none are needed for the tokens."""
    if subject.maps is not None:
        yield _recomputed(subject, maps=maps, source=source, progress=progress)
    for index in range(len(subject.frames)):
        try:
            image = subject.frames.image(index)
        except DitrError:  # other checks tell
            continue
        yield _tokens(image, source=source)
        return


def _recomputed(
    subject: Subject, *, maps: Mapping[int, Tensor], source: FeatureSource, progress: Progress
) -> Measurements:
    found = Measurements(RECOMPUTED)
    for done, (index, stored) in enumerate(maps.items()):
        progress("maps computed again", done, len(maps))
        try:
            again = encode(source, subject.frames.image(index)[None])[0].cpu().float()
        except DitrError as error:
            found.fail("recomputed", error)
            return found
        error_of_map = _difference(stored.float(), again) if again.shape == stored.shape else math.inf
        found.take("recomputed", error_of_map, subject.frames.ids[index])
    progress("maps computed again", len(maps), len(maps))
    return found


def _difference(one: Tensor, other: Tensor) -> float:
    """Relative to the other."""
    return float((one - other).norm() / other.norm())


def _tokens(image: np.ndarray, *, source: FeatureSource) -> Measurements:
    shape = map_shape(source.spec, source.entry)
    tolerated = 0 if isinstance(source.entry, VitEntry) else 1  # a neighbour may change as much in a convolution
    found = Measurements(TOKENS, token_count=f"{shape[1]} x {shape[2]} tokens of {shape[0]}", token_locality=tolerated)
    patches = _patches(image, source=source, rows=shape[1], columns=shape[2])
    try:
        alone = encode(source, image[None])[0].float()
        painted = [_painted(image, box) for _, box in patches]
        maps = encode(source, np.stack([image, *painted, 255 - image])).float()
    except DitrError as error:
        found.fail("token_count", error)
        return found
    gave = tuple(maps.shape[1:])
    found.take("token_count", gave == shape, note="" if gave == shape else f"gave {gave}")
    if gave == shape:
        _locality(maps[:-1], [token for token, _ in patches], into=found)
        found.take("repeated", _difference(maps[0], alone), note="an image alone, and among others and its negative")
    return found


def _locality(maps: Tensor, painted: list[tuple[int, int]], *, into: Measurements) -> None:
    """A painted patch changes its own token most."""
    change = (maps[1:] - maps[:1]).norm(dim=1)  # (probes, Hp, Wp)
    for (row, column), of_tokens in zip(painted, change, strict=True):
        most = divmod(int(torch.argmax(of_tokens)), of_tokens.shape[1])
        distance = max(abs(most[0] - row), abs(most[1] - column))
        note = f"painting the patch at row {row}, column {column} changes the token at {most} most" if distance else ""
        into.take("token_locality", distance, note=note)


Box = tuple[slice, slice]


def _patches(image: np.ndarray, *, source: FeatureSource, rows: int, columns: int) -> list[tuple[tuple[int, int], Box]]:
    """Row and column of a few tokens, and the pixels of each."""
    height, width = image.shape[:2]
    covered = (height, width)
    if source.spec.resize == "pad" and source.spec.input_size is not None:
        covered = source.spec.input_size
    tall, wide = covered[0] / rows, covered[1] / columns
    seen_rows, seen_columns = int(height / tall), int(width / wide)
    chosen = []
    for down, right in _PROBES:
        row, column = int(down * seen_rows), int(right * seen_columns)
        box = (
            slice(round(row * tall), round((row + 1) * tall)),
            slice(round(column * wide), round((column + 1) * wide)),
        )
        chosen.append(((row, column), box))
    return chosen


def _painted(image: np.ndarray, box: Box) -> np.ndarray:
    """Every value of the patch at the far end of its range, so that no patch looks as before."""
    painted = image.copy()
    painted[box] = np.where(image[box] < 128, 255, 0)
    return painted
