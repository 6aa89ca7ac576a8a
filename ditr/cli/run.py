"""``ditr run``: one command from specs to results."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ditr.cli.display import open_display
from ditr.cli.host import follow_ranks, in_words, make_runs_folder, open_host, open_teller
from ditr.cli.jobs_table import JobsTable
from ditr.cli.options import Overrides
from ditr.cli.spec_files import SpecFiles
from ditr.cli.specs import load_specs
from ditr.cli.tables import text_table
from ditr.cli.until_decided import run_until_decided
from ditr.driver import hidden_gpu_here
from ditr.errors import Code, DitrError, ExitCode
from ditr.paths import runs_dir
from ditr.profiles import Profile
from ditr.ranks import Ranks
from ditr.record.metrics import SCORES
from ditr.runner.join import join
from ditr.runner.launchers import Launcher
from ditr.runner.launchers.choice import launcher_for, profile_called, require_place
from ditr.runner.launchers.local import LocalLauncher
from ditr.runner.launchers.standing import held_tickets
from ditr.runner.plan import PlannedRun, plan
from ditr.runner.queue import JobFailed, run_at_once
from ditr.runner.requirements import require_inputs
from ditr.runner.run import RunOutcome, run_all
from ditr.runner.slots import Slot, gpus_of_each, require_fit, slots_of
from ditr.runner.stop import STOPPING, StopSignal
from ditr.spec.identity import fusion_parts, shown_variant
from ditr.spec.load import LoadedSpec
from ditr.spec.numbers import MOST_PROCESSES
from ditr.spec.registry import Registry

_LEAVING = b"\nleaving: the jobs go on; `ditr ls` shows them, `ditr stop` ends them\n"
STOPPED_AT_ONCE = "stopped at once; the same command goes on from the last saved state"

_SAYS = {
    "new": "new",
    "resume": "goes on",
    "again": "runs again",
    "finished": "finished before, skipped (--force runs it again)",
    "same": "same experiment as",
    "busy": "another process runs it now, skipped",
    "queued": "in a queue already",
}


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(run)


def run(
    specs: SpecFiles,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Run finished runs again, and unfinished ones anew.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_PROCESSES,
            help="So many runs at once, each in a process of its own, on the CPU even where there is a GPU.",
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(help="A run at a time on each of these GPUs: 0,1. One that is named twice takes two: 0,0,1."),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="slurm|ray|PROFILE",
            help="Give the runs to a cluster, with what a profile of that name in ditr.toml asks for.",
            show_default=False,
        ),
    ] = None,
    until_decided: Annotated[
        bool,
        typer.Option(
            "--until-decided",
            help="Add seeds to both arms of a difference in AP50, two at a time, until it is decided or there are "
            "--max-seeds; p accounts for all looks.",
        ),
    ] = False,
    max_seeds: Annotated[
        int | None, typer.Option(help="Most seeds of an arm with --until-decided: short for --set max_seeds=N.")
    ] = None,
) -> None:
    """Train and evaluate specs: what is missing is made, what is finished is skipped, what was stopped goes on.

    Each spec runs once for each of its seeds. Ctrl-C saves and stops; the same command goes on from there. With --jobs
    or --gpus several run at once and share the cores, with the same numbers on the CPU; one that fails or dies leaves
    the others alone and is reported with the end of its log. A run takes as many GPUs as its execution.gpus says; under
    torchrun, one on each rank. With --on a cluster runs them; on Slurm they go on when this command ends, and
    `ditr ls`, `ditr logs` and `ditr stop` are for them too.
    """
    sets = [*(overrides or ()), *([] if max_seeds is None else [f"max_seeds={max_seeds}"])]
    with join() as ranks:
        if ranks.leads:
            lead = partial(_lead, force=force, jobs=jobs, gpus=gpus, on=on, until_decided=until_decided, ranks=ranks)
            raise typer.Exit(lead(specs, sets))
        with StopSignal() as stop:
            follow_ranks(stop, ranks)


def _lead(
    specs: list[Path],
    overrides: list[str],
    *,
    force: bool,
    jobs: int | None,
    gpus: str | None,
    on: str | None,
    until_decided: bool,
    ranks: Ranks,
) -> ExitCode:
    registry = Registry()
    command = _command(specs, overrides=overrides, jobs=jobs, gpus=gpus, on=on, until_decided=until_decided)
    loaded = load_specs(specs, registry=registry, overrides=overrides)
    profile = None if on is None else profile_called(on)
    slots = _slots(loaded, jobs=jobs, gpus=gpus, profile=profile, ranks=ranks)
    work = partial(_work, registry=registry, slots=slots, profile=profile, force=force, ranks=ranks)
    if until_decided:
        _require_goes_on(force=force, ranks=ranks)
        outcomes = run_until_decided(loaded, work=work)
    else:
        outcomes = work(loaded)
    typer.echo(_result_table(outcomes), nl=False)
    typer.echo(_troubles(outcomes, command), err=True, nl=False)
    return _exit_code(outcomes)


def _require_goes_on(*, force: bool, ranks: Ranks) -> None:
    """Raises DitrError where one look cannot follow another."""
    if force:
        what = "--force runs finished seeds again, --until-decided goes on from them"
        raise DitrError(what, code=Code.RUN, where="ditr run", fix="Give one of them.")
    if ranks.count > 1:
        what, fix = "--until-decided plans anew after each look, and torchrun's ranks end with the first", "Use --gpus."
        raise DitrError(what, code=Code.ENVIRONMENT, where="ditr run", fix=fix)


def _work(
    loaded: Sequence[LoadedSpec],
    *,
    registry: Registry,
    slots: Sequence[Slot],
    profile: Profile | None,
    force: bool,
    ranks: Ranks,
) -> tuple[RunOutcome, ...]:
    """Plans and runs each seed of some specs."""
    planned = plan(
        loaded,
        registry=registry,
        runs=runs_dir(),
        force=force,
        device=profile.device if profile else slots[0].device if slots else None,
        elsewhere=profile is not None,
        queued=held_tickets(runs_dir()),
    )
    if profile is None:
        require_fit(planned, slots=slots)
    else:
        require_place(planned, profile=profile)
    if not (slots or profile) and any(run.runs and run.spec.execution.device == "auto" for run in planned):
        typer.echo(_beside_a_gpu(), err=True, nl=False)
    with open_display() as display:
        display.say(plan_table(planned))
        require_inputs([run.spec for run in planned if run.runs], registry=registry, progress=display.progress)
    make_runs_folder()
    if profile is not None:
        outcomes = _run_at_once(planned, launcher=launcher_for(profile, runs=runs_dir()))
    elif slots:
        outcomes = _run_at_once(planned, launcher=LocalLauncher(slots, runs=runs_dir()))
    else:
        outcomes = _run(planned, registry=registry, ranks=ranks)
    if any(run.runs for run in planned):
        typer.echo()
    return outcomes


def _slots(
    loaded: Sequence[LoadedSpec], *, jobs: int | None, gpus: str | None, profile: Profile | None, ranks: Ranks
) -> tuple[Slot, ...]:
    """Of this machine; none where each run has all of it, or a cluster runs them."""
    ways = [jobs is not None or gpus is not None, profile is not None, ranks.count > 1]
    if sum(ways) > 1:
        what = "--jobs and --gpus start processes on this machine, --on on a cluster, and torchrun starts ranks"
        raise DitrError(what, code=Code.ENVIRONMENT, where="ditr run", fix="Leave all but one of them out.")
    if profile is not None:
        return ()
    each = 1 if jobs is not None or ranks.count > 1 else gpus_of_each(loaded)
    return slots_of(jobs=jobs, gpus=gpus, each=each)


def _beside_a_gpu() -> str:
    """What to know of a GPU that torch does not see; nothing where it sees one, or there is none."""
    hidden = hidden_gpu_here()
    if hidden is None:
        return ""
    return f"BEWARE: these runs are computed on the CPU, many times slower: {hidden.what}\n  fix: {hidden.fix}\n\n"


def _command(
    specs: Sequence[Path],
    *,
    overrides: Sequence[str],
    jobs: int | None,
    gpus: str | None,
    on: str | None,
    until_decided: bool,
) -> str:
    """What goes on with what this command began, ready to be typed."""
    given = (("jobs", jobs), ("gpus", gpus), ("on", on))
    places = [f"--{name}={value}" for name, value in given if value is not None]
    sets = [part for override in overrides for part in ("--set", override)]
    until = ["--until-decided"] if until_decided else []
    return shlex.join(["ditr", "run", *map(str, specs), *sets, *places, *until])


def _run(planned: Sequence[PlannedRun], *, registry: Registry, ranks: Ranks) -> tuple[RunOutcome, ...]:
    try:
        with open_host(registry, ranks=ranks) as host:
            return run_all(planned, host=host)
    except KeyboardInterrupt:
        typer.echo(STOPPED_AT_ONCE)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _run_at_once(planned: Sequence[PlannedRun], *, launcher: Launcher) -> tuple[RunOutcome, ...]:
    says = _LEAVING if launcher.outlives else STOPPING
    try:
        with StopSignal(says=says) as stop, open_teller() as teller, JobsTable() as table:
            return run_at_once(planned, launcher=launcher, teller=teller, stop=stop, look=table.look)
    except KeyboardInterrupt:
        typer.echo(STOPPED_AT_ONCE)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def plan_table(planned: Sequence[PlannedRun]) -> str:
    """What becomes of every spec and seed."""
    rows = [
        (run.spec.name, _variant(run), run.seed, " ".join(filter(None, (_SAYS[run.status], run.same_as))))
        for run in planned
    ]
    return text_table(("spec", "variant", "seed", "plan"), rows)


def _result_table(outcomes: Sequence[RunOutcome]) -> str:
    columns = ("spec", "variant", "seed", "state", *SCORES, "step_ms", "wall_s", "folder")
    rows = []
    for outcome in outcomes:
        result, planned = outcome.result(), outcome.planned
        scores = [result.get(name) for name in (*SCORES, "step_ms")]
        state = outcome.state.state if outcome.state else "not begun"
        wall_s = outcome.state.wall_s if outcome.state else None
        rows.append((planned.spec.name, _variant(planned), planned.seed, state, *scores, wall_s, planned.folder.path))
    return text_table(columns, rows)


def _variant(run: PlannedRun) -> str:
    return shown_variant(run.variant, fusion=fusion_parts(run.spec))


def _troubles(outcomes: Sequence[RunOutcome], command: str) -> str:
    lines = [f"{run.planned.folder.path.name}: {_told(run)}" for run in outcomes if run.error is not None]
    if goes_on := sum(outcome.goes_on for outcome in outcomes):
        lines.append(f"{goes_on} go on without this command: ditr ls, ditr logs RUN -f, ditr stop RUN")
    if any(outcome.interrupted for outcome in outcomes):
        lines.append(f"stopped and saved; to go on: {command}")
    return "".join(line + "\n" for line in lines)


def _told(outcome: RunOutcome) -> str:
    error = outcome.error
    if isinstance(error, DitrError | JobFailed):
        return str(error)
    assert error is not None, "only of runs that failed"
    return f"{in_words(error)}\n  traceback: {outcome.planned.folder.log_file}"


def _exit_code(outcomes: Sequence[RunOutcome]) -> ExitCode:
    if any(outcome.interrupted or outcome.goes_on for outcome in outcomes):
        return ExitCode.INTERRUPTED
    mistakes = [_is_mistake(outcome.error) for outcome in outcomes if outcome.error is not None]
    if not all(mistakes):
        return ExitCode.FAILED
    return ExitCode.MISTAKE if mistakes else ExitCode.DONE


def _is_mistake(error: Exception) -> bool:
    """Whether the user has to change something."""
    return error.mistake if isinstance(error, JobFailed) else isinstance(error, DitrError)
