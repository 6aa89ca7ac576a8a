"""The AP of an arm's seeds when scenes count several times or not at all, exactly, for many choices at once.

AP is the sum over true positives of the mean of two precisions, from their score on and above it, times their share of
recall. All counts behind it are linear in how often each scene counts, so one matrix product gives them for all
choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from ditr.data.frame import scene_of
from ditr.errors import Code, DitrError
from ditr.evaluation.instance_ap import AP_THRESHOLDS, ESAM_THRESHOLDS, Outcomes, outcomes, pool
from ditr.evaluation.match_table import MatchTable
from ditr.seeds import derive_seed

Metric = Literal["ap", "ap50", "ap25"]
Counts = Mapping[str, np.ndarray]
"""By frame id, (G,) bool: which of its ground-truth instances count; the others are ignored as small ones are."""
_BLOCK = 2**22
"""Most numbers of one intermediate array."""


@dataclass(frozen=True)
class Scored:
    """The evaluations of one arm, one match table a seed, all on the same frames."""

    tables: Sequence[MatchTable]
    esam_compat: bool = False
    """Whether ap is the mean over ESAM's nine thresholds."""
    counts: Counts | None = None
    """None counts all ground truth that is large enough."""

    def __post_init__(self) -> None:
        for table in self.tables[1:]:
            require_same_frames(self.tables[0], table)

    @cached_property
    def scenes(self) -> tuple[str, ...]:
        """Names of the S scenes, sorted."""
        return tuple(sorted({scene_of(frame_id) for frame_id in self.tables[0].frame_ids}))

    def first(self, seeds: int) -> Scored:
        """Its first seeds, with what was drawn of them before."""
        part = replace(self, tables=self.tables[:seeds])
        part._resampled.update({key: found[:seeds] for key, found in self._resampled.items()})
        return part

    def values(self, metric: Metric) -> np.ndarray:
        """(seeds,) AP of each, every scene once; NaN without ground truth that counts."""
        return self.weighted(metric, np.ones((len(self.scenes), 1)))[:, 0]

    def resampled(self, metric: Metric, *, resamples: int, seed: int) -> np.ndarray:
        """(seeds, 1 + R) AP of each, every scene once, then in R draws of S scenes; the same draws in every arm."""
        key = (metric, resamples, seed)
        if key not in self._resampled:
            self._resampled[key] = self.weighted(metric, _scene_draws(len(self.scenes), resamples, seed=seed))
        return self._resampled[key]

    def weighted(self, metric: Metric, times: np.ndarray) -> np.ndarray:
        """(seeds, R) AP of each when scene s counts ``times[s, r]`` times, (S, R) whole numbers."""
        every = [[_weighted_ap(each, times) for each in self._events(metric, seed)] for seed in range(len(self.tables))]
        return np.asarray(np.mean(every, axis=1))

    def exchanged(self, other: Scored, metric: Metric, swap: np.ndarray) -> np.ndarray:
        """(pairs, R) AP of this arm's seeds when scene s has the other's outcomes where ``swap[s, r]``, (S, R) bool.

        Seeds are paired in their order, as far as both arms have them.
        """
        times = np.concatenate([~swap, swap]).astype(np.float64)
        pairs = range(min(len(self.tables), len(other.tables)))
        found = [
            [
                _weighted_ap(_beside(mine, theirs), times)
                for mine, theirs in zip(self._events(metric, seed), other._events(metric, seed), strict=True)
            ]
            for seed in pairs
        ]
        return np.asarray(np.mean(found, axis=1))

    def _events(self, metric: Metric, seed: int) -> Iterator[_Events]:
        """At each threshold of the metric."""
        return (self._at(seed, threshold) for threshold in _thresholds(metric, esam_compat=self.esam_compat))

    def _at(self, seed: int, threshold: float) -> _Events:
        key = (seed, threshold)
        if key not in self._known:
            table = self.tables[seed]
            pooled = pool(table, above=threshold, counts=self.counts)
            scene = {name: index for index, name in enumerate(self.scenes)}
            of_frame = np.array([scene[scene_of(frame_id)] for frame_id in table.frame_ids])
            self._known[key] = _events(outcomes(pooled, threshold=threshold), of_frame, num_scenes=len(scene))
        return self._known[key]

    @cached_property
    def _resampled(self) -> dict[tuple[Metric, int, int], np.ndarray]:
        return {}

    @cached_property
    def _known(self) -> dict[tuple[int, float], _Events]:
        return {}


def require_same_frames(first: MatchTable, second: MatchTable) -> None:
    """Raises DitrError if two tables are not of the same frames by the same protocol."""
    if first.min_points != second.min_points:
        what = f"one evaluation counts instances from {first.min_points} points on, another from {second.min_points}"
    elif set(first.frame_ids) != set(second.frame_ids):
        only = sorted(set(first.frame_ids) ^ set(second.frame_ids))
        what = f"{len(only)} frames are in one evaluation and not in the other, such as {only[0]}"
    else:
        return
    raise DitrError(what, code=Code.RUN, where="match tables", fix="evaluate both on the same frames alike")


@dataclass(frozen=True, kw_only=True)
class _Events:
    """The outcomes of F frames at one threshold, sorted by score, best first: E true and false positives."""

    score: np.ndarray
    """(E,) descending."""
    is_true: np.ndarray
    """(E,) bool."""
    scene: np.ndarray
    """(E,) int64 0..S-1."""
    num_gt: np.ndarray
    """(S,) int64 ground-truth instances that count."""

    def places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """At the P scores of true positives, best first: (P, S) float32 events above each, events from it on, and true
        positives of exactly that score. Whole numbers below 2^24, which float32 adds exactly.
        """
        group = np.unique(-self.score, return_inverse=True)[1]  # 0 is the best score
        at_place = np.unique(group[self.is_true])
        shape = (len(at_place) + 1, len(self.num_gt))
        above, from_on, true = (np.zeros(shape, dtype=np.float32) for _ in range(3))
        np.add.at(above, (np.searchsorted(at_place, group, side="right"), self.scene), 1)
        np.add.at(from_on, (np.searchsorted(at_place, group, side="left"), self.scene), 1)
        place = np.searchsorted(at_place, group[self.is_true])
        np.add.at(true, (place, self.scene[self.is_true]), 1)
        return above.cumsum(axis=0)[:-1], from_on.cumsum(axis=0)[:-1], true[:-1]


def _scene_draws(scenes: int, resamples: int, *, seed: int) -> np.ndarray:
    """(S, 1 + R): every scene once, then how often each is in S draws of them."""
    rng = np.random.default_rng(derive_seed(seed, "bootstrap"))
    drawn = rng.multinomial(scenes, np.full(scenes, 1 / scenes), size=resamples)
    return np.concatenate([np.ones((1, scenes), dtype=drawn.dtype), drawn]).T


def _events(found: Outcomes, scene_of_frame: np.ndarray, *, num_scenes: int) -> _Events:
    num_gt = np.bincount(scene_of_frame, weights=found.num_gt, minlength=num_scenes).astype(np.int64)
    return _Events(
        score=found.score[::-1], is_true=found.is_true[::-1], scene=scene_of_frame[found.frame][::-1], num_gt=num_gt
    )


def _beside(first: _Events, second: _Events) -> _Events:
    """The events of both, as of 2S scenes."""
    score = np.concatenate([first.score, second.score])
    order = np.argsort(-score, kind="stable")
    return _Events(
        score=score[order],
        is_true=np.concatenate([first.is_true, second.is_true])[order],
        scene=np.concatenate([first.scene, second.scene + len(first.num_gt)])[order],
        num_gt=np.concatenate([first.num_gt, second.num_gt]),
    )


def _weighted_ap(events: _Events, times: np.ndarray) -> np.ndarray:
    """(R,) AP when scene s counts ``times[s, r]`` times; NaN where no ground truth that counts is left."""
    above, from_on, true = events.places()
    total = events.num_gt @ times
    area = np.zeros(times.shape[1])
    columns = max(1, _BLOCK // max(1, len(above)))
    for start in range(0, times.shape[1], columns):
        some = times[:, start : start + columns].astype(np.float32)
        n_true = (true @ some).astype(np.float64)
        true_from_on = n_true.cumsum(axis=0)
        higher = _precision(true_from_on - n_true, (above @ some).astype(np.float64))
        here = _precision(true_from_on, (from_on @ some).astype(np.float64))
        area[start : start + columns] = ((higher + here) / 2 * n_true).sum(axis=0)
    return np.asarray(np.divide(area, total, out=np.full(len(area), np.nan), where=total > 0))


def _precision(true: np.ndarray, events: np.ndarray) -> np.ndarray:
    """1 where nothing was predicted, as at the artificial end of the curve."""
    return np.asarray(np.divide(true, events, out=np.ones_like(true), where=events > 0))


def _thresholds(metric: Metric, *, esam_compat: bool) -> tuple[float, ...]:
    if metric == "ap":
        return ESAM_THRESHOLDS if esam_compat else AP_THRESHOLDS
    return {"ap50": (0.50,), "ap25": (0.25,)}[metric]
