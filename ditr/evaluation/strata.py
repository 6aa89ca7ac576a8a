"""Parts of the ground truth that show where a fusion helps: by size, distance, texture, how well the image sees it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from ditr.evaluation.resampling import Counts

_PARTS = 3
"""Numbers are cut into so many parts with equally many instances."""


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Some of the ground-truth instances that are large enough to be looked for."""

    of: str
    """What it is cut by, such as ``distance``."""
    name: str
    """Which part, with its bounds."""
    counts: Counts
    """Chooses them; what is not chosen is ignored as too-small ground truth is."""
    num_instances: int


def strata(instances: pa.Table, *, min_points: int) -> tuple[Stratum, ...]:
    """Every stratum of the instances of an evaluation that has any, with bounds that depend on the ground truth alone.

    Parameters
    ----------
    instances: rows by ``INSTANCES_SCHEMA``, of all frames.
    min_points: smaller instances are in no stratum.
    """
    facts = {name: np.array(instances.column(name).to_pylist()) for name in instances.column_names}
    large = facts["n_points"] >= min_points
    if not large.any():
        return ()
    found = [(of, name, large & chosen) for of, cut in _CUTS.items() for name, chosen in cut(facts, large)]
    return tuple(
        Stratum(of=of, name=name, counts=_by_frame(facts, chosen), num_instances=int(chosen.sum()))
        for of, name, chosen in found
        if chosen.any()
    )


Facts = dict[str, np.ndarray]
Cut = Callable[[Facts, np.ndarray], Iterator[tuple[str, np.ndarray]]]


def _texture(facts: Facts, large: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    only = facts["texture_only"]
    yield "differs in texture only", only == True  # noqa: E712  # null where nobody knows
    yield "differs otherwise", only == False  # noqa: E712


def _frequency(facts: Facts, large: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for name in ("head", "common", "tail"):
        yield name, facts["frequency"] == name


def _seen(facts: Facts, large: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    ratio = facts["valid_ratio"]
    yield "every point in the image", ratio == 1
    yield "some points outside", ratio < 1


def _thirds(column: str, unit: str, digits: int) -> Cut:
    def cut(facts: Facts, large: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        values = facts[column].astype(np.float64)
        bounds = np.unique(np.quantile(values[large], np.linspace(0, 1, _PARTS + 1)[1:-1]))
        part = np.searchsorted(bounds, values, side="right")
        shown = [f"{bound:.{digits}f}" for bound in bounds]
        names = [f"below {shown[0]}{unit}", *(f"{low} to {high}{unit}" for low, high in pairwise(shown))]
        for index, name in enumerate([*names, f"from {shown[-1]}{unit} on"]):
            yield name, part == index

    return cut


_CUTS: dict[str, Cut] = {
    "texture": _texture,
    "size": _thirds("size_m", " m", 2),
    "distance": _thirds("distance_m", " m", 2),
    "points": _thirds("n_points", "", 0),
    "frequency": _frequency,
    "projection": _seen,
}


def _by_frame(facts: Facts, chosen: np.ndarray) -> Counts:
    """By frame id, one bool an instance in the order of their numbers; frames without ground truth choose nothing."""
    by_frame: dict[str, list[tuple[int, bool]]] = defaultdict(list)
    for frame_id, instance, one in zip(facts["frame_id"], facts["instance"], chosen, strict=True):
        by_frame[str(frame_id)].append((int(instance), bool(one)))
    empty = np.zeros(0, dtype=bool)
    return defaultdict(
        lambda: empty,
        {frame_id: np.array([one for _, one in sorted(rows)]) for frame_id, rows in by_frame.items()},
    )
