"""How many seeds and scenes a difference needs, as ``ditr plan`` says it, by the finished runs of its specs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ditr.cli.tables import text_table
from ditr.errors import Code, DitrError
from ditr.paths import runs_dir
from ditr.spec.identity import run_hashes
from ditr.spec.load import LoadedSpec
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.report.contrast import Contrast

_MORE_SCENES = (1, 2, 4)


def study_text(specs: Sequence[LoadedSpec], effect: float, *, registry: Registry) -> str:
    """A table of the differences between the arms that have finished runs.

    Parameters
    ----------
    effect: the difference in AP50 that is to be found.

    Raises
    ------
    DitrError: fewer than two have runs, an arm has one seed, they cannot be compared, or ``effect`` is not above 0.
    """
    from ditr.evaluation.statistics import ALPHA, POWER
    from ditr.report.arms import all_arms
    from ditr.report.compare import compare

    if not effect > 0:
        raise _refused("the difference has to be more than 0", "Say it in AP50, from 0 to 1: --seeds-for 0.02")
    arms = all_arms(runs_dir())
    hashes = dict.fromkeys(each for one in specs for each in run_hashes(one.spec, registry=registry).values())
    known = [arm for arm in arms.found if arm.spec_hash in hashes]
    few = [arm.label for arm in known if len(arm.seeds) < 2]
    if len(known) < 2 or few:
        what = f"{few[0]} has one" if few else f"{len(known)} of {len(specs)} specs have some"
        fix = "Run two seeds or more of two arms first: how trainings and scenes spread is measured on them."
        raise _refused(f"finished seeds of two arms are needed, two each, and {what}", fix)
    contrasts = compare(replace(arms, found=tuple(known)), metric="ap50").contrasts
    scenes = contrasts[0].difference.num_scenes
    if scenes < 2:
        raise _refused("frames of one scene do not say how scenes differ", "Evaluate on frames of several scenes.")
    alpha = ALPHA / len(contrasts)
    rows = [_row(one, effect, alpha=alpha) for one in contrasts]
    columns = [f"seeds at {times * scenes} scenes" for times in _MORE_SCENES]
    return (
        f"to find a difference of {effect:g} AP50 in {POWER:.0%} of studies, with p below {ALPHA:g} after correction"
        f" for {len(contrasts)}:\n"
        + text_table(("difference", "seeds now", "detectable now", *columns, "scenes at these seeds"), rows)
        + "seeds of each arm; by variances that are estimates themselves, the better the more seeds they are of\n"
    )


def _row(contrast: Contrast, effect: float, *, alpha: float) -> tuple[str | int | float, ...]:
    from ditr.evaluation.study_size import MOST_SCENES, MOST_SEEDS, detectable, scenes_for, seeds_for

    found, now = contrast.difference, min(contrast.difference.num_seeds)
    known, scenes = found.variances, found.num_scenes
    needed = [seeds_for(effect, known, scenes=times * scenes, alpha=alpha) for times in _MORE_SCENES]
    return (
        f"{contrast.label} - {contrast.reference}",
        now,
        detectable(known, scenes=scenes, seeds=now, alpha=alpha),
        *(f"> {MOST_SEEDS}" if count is None else count for count in needed),
        scenes_for(effect, known, seeds=now, alpha=alpha) or f"> {MOST_SCENES}",
    )


def _refused(what: str, fix: str) -> DitrError:
    return DitrError(what, code=Code.RUN, where="--seeds-for", fix=fix)
