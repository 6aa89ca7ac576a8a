"""``ditr run --until-decided``: arms get more seeds, look by look, while a difference between them is not decided."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from ditr.errors import Code, DitrError
from ditr.paths import runs_dir
from ditr.runner.run import RunOutcome
from ditr.spec.load import LoadedSpec

if TYPE_CHECKING:
    from ditr.evaluation.looks import Look
    from ditr.report.compare import Comparison

Work = Callable[[Sequence[LoadedSpec]], tuple[RunOutcome, ...]]
"""Runs specs with each of their seeds, as far as these are not finished."""


def run_until_decided(specs: Sequence[LoadedSpec], *, work: Work) -> tuple[RunOutcome, ...]:
    """Runs the seeds that the specs name, then more of both arms of each difference that is not decided.

    It ends before a look that lacks a run, which failed or was stopped. Called again, it comes to the same place by
    what is finished: when to look hangs on ``max_seeds`` alone (``ditr.evaluation.looks``).

    Raises
    ------
    DitrError: the specs have no common ``max_seeds``, or their runs cannot be compared.
    """
    from ditr.evaluation.looks import looks

    most, named = _max_seeds(specs), max(len(one.spec.seeds) for one in specs)
    undecided, outcomes = list(specs), dict[str, RunOutcome]()
    for look in (look for look in looks(most) if look.seeds >= named):
        done = work([_with_seeds(one, look.seeds) for one in undecided])
        outcomes |= {outcome.planned.folder.path.name: outcome for outcome in done}
        if not all(outcome.state and outcome.state.state == "finished" for outcome in done):
            typer.echo(f"look {look.number} of {look.of} waits for runs that are not finished", err=True)
            break
        hashes = {outcome.planned.source: outcome.planned.spec_hash for outcome in outcomes.values()}
        comparison = _compare(hashes.values(), max_seeds=most)
        typer.echo(f"{_said(comparison, look)}\n")
        wanted = _undecided(comparison)
        undecided = [one for one in undecided if hashes[one.path] in wanted]
        if not undecided:
            break
    return tuple(outcomes.values())


def _max_seeds(specs: Sequence[LoadedSpec]) -> int:
    """What all of them say."""
    said = {one.spec.max_seeds for one in specs}
    if len(specs) < 2:
        raise _refused("there is one arm, and differences are between two", "Name the specs of all arms.")
    if len(said) > 1 or None in said:
        each = ", ".join(f"{one.spec.max_seeds or 'none'} in {one.spec.name}" for one in specs)
        raise _refused(f"the looks are planned by one max_seeds of all arms: {each}", "Say it for all: --max-seeds 9")
    return max(count for count in said if count is not None)


def _with_seeds(one: LoadedSpec, count: int) -> LoadedSpec:
    """With so many; those that are added come after its own, in the order of their numbers."""
    seeds = one.spec.seeds
    after = max(seeds) + 1
    more = range(after, after + count - len(seeds))
    return replace(one, spec=one.spec.model_copy(update={"seeds": (*seeds, *more)}))


def _compare(hashes: Iterable[str], *, max_seeds: int) -> Comparison:
    from ditr.report.arms import all_arms
    from ditr.report.compare import compare

    arms = all_arms(runs_dir()).called(list(dict.fromkeys(hashes)))
    if len(arms.found) < 2:
        raise _refused("all specs are the same experiment", "Name the specs of different arms.")
    if others := {count: arm.label for arm in arms.found for count in arm.max_seeds if count != max_seeds}:
        count, label = others.popitem()
        what = f"runs of {label} have been looked at by a plan of at most {count} seeds, not {max_seeds}"
        raise _refused(what, f"Keep to it, or no p accounts for the looks: --max-seeds {count}")
    try:
        found = compare(arms, metric="ap50")
    except DitrError as error:
        names = " ".join(arm.label for arm in arms.found)
        fix = f"Run all seeds alike. What is finished stays, to be looked at with: ditr compare {names} --allow FIELD"
        raise DitrError(error.what, code=error.code, where="--until-decided", fix=fix) from error
    if math.isnan(found.contrasts[0].p_holm):
        raise _refused("frames of one scene decide nothing, however many seeds there are", "Evaluate on more scenes.")
    return found


def _undecided(comparison: Comparison) -> set[str]:
    """Hashes of the arms of each difference that is."""
    from ditr.report.answers import verdict

    left = [one for one in comparison.contrasts if verdict(one) == "not decided"]
    return {comparison.summary(label).arm.spec_hash for one in left for label in (one.label, one.reference)}


def _said(comparison: Comparison, look: Look) -> str:
    from ditr.report.answers import metric_name, p_text, verdict

    metric = metric_name(comparison.metric)
    lines = [f"look {look.number} of {look.of}, with {look.seeds} seeds of each arm that is not decided:"]
    lines += [
        f"  {one.label} - {one.reference}: {one.difference.value:+.3f} {metric}, p {p_text(one.p_holm)} for all looks"
        f" and differences: {'not decided' if verdict(one) == 'not decided' else 'decided'}"
        for one in comparison.contrasts
    ]
    if look.number == look.of and _undecided(comparison):
        lines.append(f"there are no more than {look.seeds} seeds: what is not decided stays open")
        lines.append("what it would take: ditr plan SPEC... --seeds-for DIFFERENCE")
    return "\n".join(lines)


def _refused(what: str, fix: str) -> DitrError:
    return DitrError(what, code=Code.RUN, where="--until-decided", fix=fix)
