"""How sure a difference between two arms is: over the scenes that were looked at, and over trainings.

A number of the study should hold for other scenes and for other seeds. Frames of a scene resemble each other, so scenes
are what is drawn; and the few seeds of an arm are a sample of its trainings. The two kinds of chance are estimated
apart: the scenes' by a bootstrap that draws the same scenes for both arms, the seeds' by their spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ditr.evaluation.resampling import Metric, Scored, require_same_frames
from ditr.seeds import derive_seed

ALPHA = 0.05
"""Chance with which a difference is found where there is none."""
POWER = 0.8
"""Chance with which the minimum detectable effect is found."""
FEWEST_SEEDS = 3
"""Below it nothing is decided: the spread of trainings is not known."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A number of an arm over its seeds."""

    values: tuple[float, ...]
    mean: float
    sd: float | None
    """Of the sample, with n - 1; None for one seed."""

    @property
    def n(self) -> int:
        return len(self.values)


@dataclass(frozen=True, kw_only=True)
class TrainingVariances:
    """Variances of an arm's AP, from one training to another."""

    in_scenes: float
    """That each does well on other scenes: of an AP over S scenes it is one S-th of this."""
    in_all: float
    """Over all scenes there could be."""


@dataclass(frozen=True, kw_only=True)
class Variances:
    """What makes a difference unsure, for any number of scenes and of seeds."""

    gains: float
    """Between scenes, of what one arm's trainings together gain over the other's."""
    arms: tuple[TrainingVariances | None, TrainingVariances | None]
    """None for one seed."""

    def parts(self, *, scenes: int, seeds: int) -> list[tuple[float, int]]:
        """Variance and degrees of freedom of the scenes' part and of each arm's seeds', with so many of both."""
        known = [arm for arm in self.arms if arm]
        of_scenes = max(0.0, self.gains) + sum(max(0.0, arm.in_scenes) for arm in known) / seeds
        return [(of_scenes / scenes, scenes - 1), *((arm.in_all / seeds, seeds - 1) for arm in known)]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much higher the second arm's mean is than the first's, and how sure that is."""

    value: float
    low: float
    high: float
    """Bounds of the confidence interval."""
    p: float
    """Two-sided, of the test that the interval inverts: at which level it would just reach 0. With one scene this, the
    bounds and the errors are NaN."""
    se: float
    """Standard error: the root of the squares of the two below, and of nothing else."""
    se_scenes: float
    se_seeds: float | None
    """None if an arm has one seed: then nothing here says what another training would give."""
    dof: float
    """Degrees of freedom of the standard error, by Welch and Satterthwaite."""
    minimum_detectable: float
    """A true difference of this size would be found in 80 of 100 such studies."""
    num_scenes: int
    num_seeds: tuple[int, int]
    """Of the first and of the second arm."""
    resamples: int
    """Draws of scenes in which both arms have an AP."""
    variances: Variances


def spread(arm: Scored, *, metric: Metric) -> Spread:
    """AP of each seed, their mean and standard deviation."""
    values = arm.values(metric)
    return Spread(
        values=tuple(values.tolist()),
        mean=float(values.mean()),
        sd=float(values.std(ddof=1)) if len(values) > 1 else None,
    )


def difference(
    first: Scored,
    second: Scored,
    *,
    metric: Metric,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 1 - ALPHA,
) -> Difference:
    """The second arm against the first on the same frames.

    The standard error has two parts. Scenes: the bootstrap's variance of the difference between the arms' means, which
    holds the models fixed. Seeds: the variance of each arm's mean over its seeds, less what of it is the chance of
    which scenes a model does well on, since the bootstrap has that already. The interval is Student's with the degrees
    of freedom of the two together: the plain percentiles of a bootstrap over three or five seeds are too narrow.

    Raises
    ------
    DitrError: the arms were not evaluated on the same frames alike.
    """
    require_same_frames(first.tables[0], second.tables[0])
    scenes = len(first.scenes)
    one, other = (arm.resampled(metric, resamples=resamples, seed=seed) for arm in (first, second))
    now = one[:, 0], other[:, 0]
    kept = np.isfinite(one).all(axis=0) & np.isfinite(other).all(axis=0)
    kept[0] = False
    one, other = one[:, kept], other[:, kept]
    of_scenes = _variance(other.mean(axis=0) - one.mean(axis=0)) * _unbias(scenes)
    value = float(now[1].mean() - now[0].mean())
    arms = (_of_training(now[0], one, scenes), _of_training(now[1], other, scenes))
    counts = (len(now[0]), len(now[1]))
    known = [(arm.in_all / n, n - 1) for arm, n in zip(arms, counts, strict=True) if arm]
    se, dof = combined([(of_scenes, scenes - 1), *known])
    margin = float(stats.t.ppf(0.5 + confidence / 2, dof)) * se
    return Difference(
        value=value,
        low=value - margin,
        high=value + margin,
        p=_p(value, se=se, dof=dof),
        se=se,
        se_scenes=float(np.sqrt(of_scenes)),
        se_seeds=float(np.sqrt(sum(variance for variance, _ in known))) if all(arms) else None,
        dof=dof,
        minimum_detectable=margin + float(stats.t.ppf(POWER, dof)) * se,
        num_scenes=scenes,
        num_seeds=counts,
        resamples=int(kept.sum()),
        variances=Variances(
            gains=scenes * of_scenes - sum(arm.in_scenes / n for arm, n in zip(arms, counts, strict=True) if arm),
            arms=arms,
        ),
    )


def permutation_p(first: Scored, second: Scored, *, metric: Metric, resamples: int = 1000, seed: int = 0) -> float:
    """Share of exchanges of the arms' outcomes, scene by scene, that differ at least as much as the one at hand.

    Two-sided: about these trained models alone, whatever other seeds would have given, and about whether they differ at
    all. Raises DitrError as ``difference`` does.
    """
    require_same_frames(first.tables[0], second.tables[0])
    rng = np.random.default_rng(derive_seed(seed, "exchange"))
    swap = rng.random((len(first.scenes), resamples)) < 0.5
    swap[:, 0] = False
    gained = second.exchanged(first, metric, swap) - first.exchanged(second, metric, swap)
    found = np.abs(gained.mean(axis=0))
    return float(np.mean(found >= found[0] - 1e-12))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Each p corrected for that many tests, in the order given (Holm 1979); one that is NaN, unknown, stays so."""
    known = [at for at, p in enumerate(p_values) if not math.isnan(p)]
    corrected = [math.nan] * len(p_values)
    worst = 0.0
    for rank, at in enumerate(sorted(known, key=lambda index: p_values[index])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[at]))
        corrected[at] = worst
    return tuple(corrected)


def combined(parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Standard error and degrees of freedom of a sum of independent parts: the variance and the degrees of each."""
    total = float(sum(variance for variance, _ in parts))
    each = sum(variance**2 / dof for variance, dof in parts if variance > 0)
    return float(np.sqrt(total)), total**2 / each if each else float(max(dof for _, dof in parts))


def _of_training(values: np.ndarray, drawn: np.ndarray, scenes: int) -> TrainingVariances | None:
    """None for one seed.

    The spread of seeds holds that each model does well on other scenes, and so does the bootstrap: a single seed varies
    more over draws of scenes than the mean of n, and n / (n - 1) times that excess is what they share.
    """
    n = len(values)
    if n < 2:
        return None
    excess = (np.mean([_variance(row) for row in drawn]) - _variance(drawn.mean(axis=0))) * _unbias(scenes)
    of_scenes = float(excess * n / (n - 1))
    return TrainingVariances(in_scenes=scenes * of_scenes, in_all=max(0.0, float(values.var(ddof=1)) - of_scenes))


def _unbias(scenes: int) -> float:
    """A draw of S of S scenes varies a little too little."""
    return scenes / (scenes - 1) if scenes > 1 else math.nan


def _p(value: float, *, se: float, dof: float) -> float:
    if se == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * stats.t.sf(abs(value) / se, dof))


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else float("nan")
