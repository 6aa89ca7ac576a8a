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

POWER = 0.8
"""Chance with which the minimum detectable effect is found."""


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
    confidence: float = 0.95,
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
    unbias = scenes / (scenes - 1) if scenes > 1 else np.nan  # a draw of S of S scenes varies a little too little
    of_scenes = _variance(other.mean(axis=0) - one.mean(axis=0)) * unbias
    value = float(now[1].mean() - now[0].mean())
    of_seeds = [_of_seeds(values, drawn, unbias) for values, drawn in zip(now, (one, other), strict=True)]
    known = [part for part in of_seeds if part is not None]
    dofs = [scenes - 1, *(len(values) - 1 for values, part in zip(now, of_seeds, strict=True) if part is not None)]
    se, dof = _together([of_scenes, *known], dofs)
    margin = float(stats.t.ppf(0.5 + confidence / 2, dof)) * se
    return Difference(
        value=value,
        low=value - margin,
        high=value + margin,
        p=_p(value, se=se, dof=dof),
        se=se,
        se_scenes=float(np.sqrt(of_scenes)),
        se_seeds=float(np.sqrt(sum(known))) if None not in of_seeds else None,
        dof=dof,
        minimum_detectable=margin + float(stats.t.ppf(POWER, dof)) * se,
        num_scenes=scenes,
        num_seeds=(len(first.tables), len(second.tables)),
        resamples=int(kept.sum()),
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


def _of_seeds(values: np.ndarray, drawn: np.ndarray, unbias: float) -> float | None:
    """Variance of an arm's mean that its seeds cause; None for one seed.

    The spread of seeds holds that each model does well on other scenes, and so does the bootstrap: a single seed varies
    more over draws of scenes than the mean of n, and n / (n - 1) times that excess is what they share.
    """
    n = len(values)
    if n < 2:
        return None
    excess = (np.mean([_variance(row) for row in drawn]) - _variance(drawn.mean(axis=0))) * unbias
    return float(max(0.0, values.var(ddof=1) - excess * n / (n - 1)) / n)


def _together(variances: Sequence[float], dofs: Sequence[int]) -> tuple[float, float]:
    """Standard error and degrees of freedom of a sum of independent parts."""
    total = float(sum(variances))
    parts = sum(variance**2 / dof for variance, dof in zip(variances, dofs, strict=True) if variance > 0)
    return float(np.sqrt(total)), total**2 / parts if parts else float(max(dofs))


def _p(value: float, *, se: float, dof: float) -> float:
    if se == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * stats.t.sf(abs(value) / se, dof))


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else float("nan")
