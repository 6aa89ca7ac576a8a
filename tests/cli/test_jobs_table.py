"""What is said of several runs under way, from their folders alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ditr.cli.jobs_table import COLUMNS, JobsTable, how_it_ended, job_row
from ditr.cli.tables import text_table
from ditr.files import write_json, write_text
from ditr.paths import project_dir
from ditr.record.recording import begin
from ditr.runner.plan import PlannedRun, plan
from ditr.runner.queue import JobFailed, Standing
from ditr.runner.run import RunOutcome
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

REGISTRY = Registry()


@pytest.fixture
def runs(tmp_path: Path) -> tuple[PlannedRun, ...]:
    """The first trains, the second has just begun."""
    spec = load_spec(
        project_dir() / "specs/baseline.yaml", registry=REGISTRY, overrides=["seeds=[0, 1]", "schedule.epochs=4"]
    )
    planned = plan([spec], registry=REGISTRY, runs=tmp_path, force=False)
    begin(planned[0].folder, planned[0].identity(kind="run", seed=0)).note_steps(400)
    rows = [(100, 10.0, {"val/ap50": 0.25}), (101, 1000.0, {"train/loss": 3.0}), (151, 1100.0, {"train/loss": 2.5})]
    write_text(
        planned[0].folder.metrics,
        "".join(f'{{"step": {step}, "at": {at}, "metrics": {metrics}}}\n' for step, at, metrics in rows).replace(
            "'", '"'
        )
        + '{"step": 152, "at"',
    )
    return planned


def test_a_row_says_how_far_a_run_is_and_when_it_is_done(runs: tuple[PlannedRun, ...]) -> None:
    rows = [job_row(run, began=900.0, now=1110.0) for run in runs]
    first, second = (run.folder.path.name for run in runs)
    wide = " " * (len(first) - 3)
    assert text_table(COLUMNS, rows) == (
        f"run{wide}  state   epoch  step     loss  ap50  time        left\n"
        f"{first}  trains  2/4    151/400   2.5  0.25  3 min 30 s  8 min 18 s\n"
        f"{second}  starts  -      0           -     -  3 min 30 s  -\n"
    ), "249 steps at 2 s each; a row of an earlier session does not slow it down, a torn one is left out"


def test_how_runs_ended_is_said_once_each_and_what_waits(
    runs: tuple[PlannedRun, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ditr.cli.jobs_table.QUIET_S", 0.0)
    failed = RunOutcome(planned=runs[0], state=None, error=JobFailed("ended by signal 9\n  the end", mistake=False))
    table = JobsTable()
    for waiting in (3, 2):
        table.look(Standing(under_way=runs[1:], ended=(failed,), waiting=waiting))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{runs[0].folder.path.name}: ended by signal 9"
    assert [line for line in lines if "waiting" in line] == ["3 waiting, 1 failed", "2 waiting, 1 failed"]
    assert sum("signal" in line for line in lines) == 1

    state = runs[0].folder.state()
    assert state is not None
    write_json(runs[0].folder.result, {"ap50": 0.5})
    name = runs[0].folder.path.name
    done = RunOutcome(planned=runs[0], state=replace(state, state="finished", wall_s=61.0))
    assert how_it_ended(done) == f"{name}: finished, ap50 0.5000, 1 min 1 s"
    assert how_it_ended(replace(done, interrupted=True)) == f"{name}: stopped and saved"
