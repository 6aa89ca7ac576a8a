"""``ditr check | features check``: what of a spec can be known to be wrong before any training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditr.cli import features
from ditr.cli.host import in_words, open_host
from ditr.cli.options import Overrides
from ditr.cli.spec_files import SpecFiles
from ditr.cli.specs import load_specs
from ditr.cli.tables import text_table
from ditr.errors import Code, DitrError, ExitCode, Interrupted
from ditr.paths import runs_dir
from ditr.runner.check import SpecCheck, check_all
from ditr.runner.check_subject import CheckRequest
from ditr.spec.check_stages import STAGES
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.checks.measure import Check

STOPPED = "stopped: nothing of this spec was recorded; a check of before stays"
STOPPING = b"\nstopping at the next frame, nothing of this spec will be recorded; once more stops at once\n"
_COLUMNS = ("stage", "check", "value", "limit", "result", "detail")

Frames = Annotated[int, typer.Option(min=1, help="How many frames are looked at, spread over train and val.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app`` and to the group of ``ditr features``."""
    app.command()(check)
    features.group.command("check")(check_features)


def check(
    specs: SpecFiles,
    frames: Frames = 10,
    stage: Annotated[str, typer.Option(help="Which stages, such as 3 or 1,2.")] = "1,2,3,4",
    overrides: Overrides = None,
) -> None:
    """Check specs before training: 1 features, 2 projection, 3 pyramid, 4 injection. Trains nothing.

    Maps of the frames that are looked at are made if they are missing. Limits are the spec's `checks`. What was found
    is recorded beside runs (table `checks` of `ditr query`); exit code 1 if a check failed.
    """
    _check(specs, asked=CheckRequest(stages=_stages(stage), frames=frames), overrides=overrides)


def check_features(specs: SpecFiles, frames: Frames = 10, overrides: Overrides = None) -> None:
    """Check the stored maps of specs: every map is looked at, and those of some frames are computed again.

    None is made. It is stage 1 of `ditr check`, which looks at some maps only; exit code 1 if a check failed.
    """
    _check(specs, asked=CheckRequest(stages=(1,), frames=frames, every_map=True), overrides=overrides)


def _check(specs: Sequence[Path], *, asked: CheckRequest, overrides: list[str] | None) -> None:
    registry = Registry()
    loaded = load_specs(specs, registry=registry, overrides=overrides)
    done: list[SpecCheck] = []
    try:
        with open_host(registry, says=STOPPING) as host:
            for checked in check_all(loaded, asked=asked, host=host, runs=runs_dir()):
                host.say(_report(checked))
                done.append(checked)
    except (Interrupted, KeyboardInterrupt):
        typer.echo(STOPPED, err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    for checked in done:
        if checked.error is not None:
            typer.echo(_trouble(checked, checked.error), err=True)
    raise typer.Exit(_exit_code(done))


def _stages(text: str) -> tuple[int, ...]:
    wanted = {part.strip() for part in text.split(",")}
    known = {str(number) for number in STAGES}
    if not wanted <= known:
        listed = ", ".join(f"{number} {name}" for number, name in STAGES.items())
        fix = f"The stages are {listed}; give one or several with commas between."
        raise DitrError(f"no stage {', '.join(sorted(wanted - known))!r}", code=Code.RUN, where="--stage", fix=fix)
    return tuple(sorted(int(number) for number in wanted))


def _report(checked: SpecCheck) -> str:
    """Table, whole messages of what failed, and a line a stage."""
    if checked.folder is None:
        return f"  {checked.name} could not be checked"
    table = text_table(_COLUMNS, [_row(check) for check in checked.checks]) if checked.checks else ""
    lines = ["", *table.splitlines(), ""]
    for check in checked.checks:
        if not check.passed and "\n" in check.detail:
            lines += [f"{STAGES[check.stage]} {check.name}:", *(f"  {line}" for line in check.detail.splitlines()), ""]
    lines += [_stage_line(stage, checked) for stage in checked.asked.stages]
    lines.append(f"  recorded in {checked.folder.path}")
    if checked.replaced is not None:
        lines.append(f"  replaced: the same check of before is in {checked.replaced}")
    return "\n".join([*lines, ""])


def _row(check: Check) -> tuple[str | float | None, ...]:
    first_line = check.detail.partition("\n")[0]
    return STAGES[check.stage], check.name, check.value, check.limit, "pass" if check.passed else "FAIL", first_line


def _stage_line(stage: int, checked: SpecCheck) -> str:
    of_stage = [check for check in checked.checks if check.stage == stage]
    failed = [check.name for check in of_stage if not check.passed]
    head = f"{checked.name}, stage {stage} {STAGES[stage]}"
    if not of_stage:
        return f"{head}: nothing to check in this spec"
    if not failed:
        return f"{head}: {_checks(len(of_stage))} passed"
    return f"{head}: {len(failed)} of {_checks(len(of_stage))} FAILED: {', '.join(failed)}"


def _checks(count: int) -> str:
    return f"{count} check{'' if count == 1 else 's'}"


def _trouble(checked: SpecCheck, error: Exception) -> str:
    if isinstance(error, DitrError):
        return f"{checked.name}: {error}"
    return f"{checked.name}: {in_words(error)}"


def _exit_code(done: Sequence[SpecCheck]) -> ExitCode:
    """What failed counts more than what could not be checked because of a user's mistake."""
    errors = [checked.error for checked in done if checked.error is not None]
    if any(checked.failed for checked in done) or any(not isinstance(error, DitrError) for error in errors):
        return ExitCode.FAILED
    return ExitCode.MISTAKE if errors else ExitCode.DONE
