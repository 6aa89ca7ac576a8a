"""What happens around the work of runs; the work itself is replaced."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ditr.data.dataset import Dataset
from ditr.errors import Code, DitrError, Interrupted
from ditr.evaluation.evaluate import Evaluation, evaluate
from ditr.evaluation.instance_facts import load_instances
from ditr.paths import project_dir
from ditr.progress import silent
from ditr.record.views import views_of
from ditr.record.views.results import Results
from ditr.record.views.teller import Teller
from ditr.runner.host import Host
from ditr.runner.plan import PlannedRun, plan
from ditr.runner.run import run_all
from ditr.runner.session import Session
from ditr.runner.stop import StopSignal
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

REGISTRY = Registry()
Work = Callable[[Session], None]
LOGGED = {f"epoch/{name}": 1.0 for name in ("lr", "step_ms", "data_ms", "peak_mem_mb")}


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], None]:
    def put(by: Work) -> None:
        monkeypatch.setattr(Session, "work", by)

    return put


def plan_seeds(runs: Path, *seeds: int, force: bool = False) -> tuple[PlannedRun, ...]:
    spec = load_spec(project_dir() / "specs/baseline.yaml", registry=REGISTRY, overrides=[f"seeds={list(seeds)}"])
    return plan([spec], registry=REGISTRY, runs=runs, force=force)


def host(stop: StopSignal, said: list[str] | None = None) -> Host:
    say = [].append if said is None else said.append
    return Host(
        registry=REGISTRY,
        progress=silent,
        say=say,
        stop=stop,
        draw=lambda folder, evaluation: None,
        teller=Teller((), say=print),
    )


def test_a_failing_run_is_recorded_and_the_others_still_run(tmp_path: Path, work: Callable[[Work], None]) -> None:
    def fail_seed_0(session: Session) -> None:
        if session.planned.seed == 0:
            raise ZeroDivisionError("inside the run")

    work(fail_seed_0)
    results = Results(tmp_path)
    failed, fine = run_all(plan_seeds(tmp_path, 0, 1), host=host(StopSignal()))
    assert isinstance(failed.error, ZeroDivisionError)
    assert failed.state is not None
    assert (failed.state.state, failed.state.error) == ("failed", "inside the run")
    assert "fail_seed_0" in failed.planned.folder.log_file.read_text(), "the log has the traceback"
    assert fine.state is not None
    assert fine.state.state == "finished"
    assert results.query("select seed, state from results order by seed").rows == ((0, "failed"), (1, "finished"))


def test_a_run_whose_key_is_not_of_what_lies_here_now_is_refused(tmp_path: Path) -> None:
    (run,) = plan_seeds(tmp_path, 0)
    with StopSignal() as stop:
        (outcome,) = run_all([replace(run, spec_hash="0" * 64)], host=host(stop))
    assert isinstance(outcome.error, DitrError)
    assert "has changed since this was planned" in outcome.error.what
    assert not run.folder.result.exists()


def test_an_interrupted_run_ends_the_plan_and_goes_on_later(tmp_path: Path, work: Callable[[Work], None]) -> None:
    stop = StopSignal()

    def interrupt(session: Session) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        raise Interrupted

    work(interrupt)
    with stop:
        first, second = run_all(plan_seeds(tmp_path, 0, 1), host=host(stop))
    assert first.state is not None
    assert (first.state.state, first.interrupted) == ("interrupted", True)
    assert (second.state, second.interrupted) == (None, True)
    assert [run.status for run in plan_seeds(tmp_path, 0, 1)] == ["resume", "new"]


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("asked", "state"), [(True, "interrupted"), (False, "failed")])
def test_a_stop_that_ends_helping_processes_too_is_a_stop(
    asked: bool, state: str, tmp_path: Path, work: Callable[[Work], None]
) -> None:
    """As a cluster's SIGTERM does, which a whole process group hears."""

    def make_rooms(session: Session) -> None:
        if asked:
            os.kill(os.getpid(), signal.SIGTERM)
        # Not of the fork server: once a loader has started it, its children hear no SIGTERM.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(_end).result()

    work(make_rooms)
    with StopSignal() as stop:
        (outcome,) = run_all(plan_seeds(tmp_path, 0), host=host(stop))
    assert outcome.state is not None
    assert (outcome.state.state, outcome.interrupted) == (state, asked)


def test_a_second_interrupt_ends_at_once_and_leaves_a_resumable_run(
    tmp_path: Path, work: Callable[[Work], None]
) -> None:
    def insist(session: Session) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    work(insist)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), StopSignal() as stop:
        run_all(plan_seeds(tmp_path, 0), host=host(stop))
    assert signal.getsignal(signal.SIGINT) is before
    assert [run.status for run in plan_seeds(tmp_path, 0)] == ["resume"]


def test_progress_outside_of_training_stops_where_it_is(tmp_path: Path) -> None:
    with StopSignal() as stop:
        progress = stop.stopping(silent)
        progress("make", 1, 2)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            progress("make", 2, 2)


def test_a_resumed_run_adds_up_its_time_and_keeps_its_start(tmp_path: Path, work: Callable[[Work], None]) -> None:
    def stop_here(session: Session) -> None:
        raise DitrError("no room", code=Code.RUN)

    work(stop_here)
    (first,) = run_all(plan_seeds(tmp_path, 0), host=host(StopSignal()))
    work(lambda session: None)
    (second,) = run_all(plan_seeds(tmp_path, 0), host=host(StopSignal()))
    assert first.state is not None
    assert second.state is not None
    assert second.state.started_at == first.state.started_at
    assert second.state.wall_s >= first.state.wall_s
    assert (second.state.state, second.state.error) == ("finished", None)


def test_force_keeps_the_old_run_aside(tmp_path: Path, work: Callable[[Work], None]) -> None:
    work(lambda session: session.account.log(1, {"train/loss": 0.5}))
    results = Results(tmp_path)
    run_all(plan_seeds(tmp_path, 0), host=host(StopSignal()))
    said: list[str] = []
    run_all(plan_seeds(tmp_path, 0, force=True), host=host(StopSignal(), said))
    (kept,) = (tmp_path / ".replaced").iterdir()
    assert (kept / "metrics.jsonl").read_text().count("\n") == 1
    assert any(str(kept) in line for line in said)
    assert results.query("select count(*) from metrics").rows == ((1,),)


def test_only_the_evaluation_that_is_written_collects_what_is_written(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bool]] = []
    really = evaluate

    def noted(*args: Any, **kwargs: Any) -> Evaluation:
        asked.append((kwargs["keep"], kwargs["facts"]))
        return really(*args, **kwargs)

    monkeypatch.setattr("ditr.evaluation.evaluate.evaluate", noted)
    small = ["dataset.name=synthrooms_tiny", "checkpoint=null", "execution.workers=0", "tracking.mlflow=false"]
    twice = ["schedule.epochs=2", "schedule.validate_every=1", "tracking.panels=1"]
    spec = load_spec(project_dir() / "specs/baseline.yaml", registry=REGISTRY, overrides=[*small, *twice])
    planned = plan([spec], registry=REGISTRY, runs=tmp_path, force=False)
    (outcome,) = run_all(planned, host=host(StopSignal()))
    assert outcome.error is None
    assert asked == [(0, False), (1, True)]
    assert load_instances(outcome.planned.folder.instances).num_rows > 0


@pytest.mark.parametrize(
    ("wild", "why"),
    [
        (["schedule.batch_size=1", "schedule.epochs=9"], "the loss is "),
        (["schedule.grad_clip_norm=1000000", "schedule.epochs=1"], "the model's output is not a number for scene"),
    ],
    ids=["in a step", "after the last step"],
)
def test_a_training_that_diverges_keeps_the_batch_and_says_how_to_come_to_it_again(
    wild: list[str], why: str, tmp_path: Path, tiny_dataset: Dataset
) -> None:
    small = ["dataset.name=synthrooms_tiny", "checkpoint=null", "execution.workers=0", "tracking.mlflow=false"]
    wild = ["schedule.learning_rate=100", *wild]

    def failed(path: Path, overrides: list[str]) -> DitrError:
        spec = load_spec(path, registry=REGISTRY, overrides=overrides)
        (outcome,) = run_all(plan([spec], registry=REGISTRY, runs=tmp_path, force=False), host=host(StopSignal()))
        assert isinstance(outcome.error, DitrError)
        assert (outcome.planned.folder.diverged / "batch.safetensors").is_file()
        return outcome.error

    first = failed(project_dir() / "specs/baseline.yaml", [*small, *wild])
    assert "the training diverged in step" in first.what
    assert why in first.what
    *_, spec, _, seeds = shlex.split(first.fix)
    assert str(failed(Path(spec), [seeds])) == str(first), "the same step, with the same numbers"


def test_a_picture_that_fails_costs_no_number(tmp_path: Path, tiny_dataset: Dataset) -> None:
    def fail(*arguments: object) -> NoReturn:
        raise ValueError("no such colour")

    small = ["dataset.name=synthrooms_tiny", "checkpoint=null", "schedule.epochs=1", "execution.workers=0"]
    spec = load_spec(
        project_dir() / "specs/baseline.yaml", registry=REGISTRY, overrides=[*small, "tracking.mlflow=false"]
    )
    planned = plan([spec], registry=REGISTRY, runs=tmp_path, force=False)
    results = Results(tmp_path)
    (outcome,) = run_all(planned, host=replace(host(StopSignal()), draw=fail))
    assert isinstance(outcome.error, ValueError)
    (row,) = results.query("select state, ap50 is not null from results").rows
    assert row == ("failed", True)


def test_views_in_trouble_stop_no_run_and_cost_nothing(
    tmp_path: Path, work: Callable[[Work], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both files are damaged beyond opening; the run is whole, and they are caught up when they can be."""
    work(lambda session: session.account.log(1, {"epoch/loss": 0.5, **LOGGED}))
    (tmp_path / "mlflow.db").write_bytes(b"damaged")
    (tmp_path / "results.duckdb").mkdir()
    said: list[str] = []
    with Teller(views_of(tmp_path), say=said.append) as teller:
        (outcome,) = run_all(plan_seeds(tmp_path, 0), host=replace(host(StopSignal()), teller=teller))
    assert outcome.error is None
    assert outcome.state is not None
    assert outcome.state.state == "finished"
    assert [line.partition(" ")[0] for line in said] == ["results.duckdb", "mlflow.db"]
    (tmp_path / "results.duckdb").rmdir()
    assert Results(tmp_path).query("select state from results").rows == (("finished",),)


def test_a_second_interrupt_that_a_library_makes_another_error_of_is_no_failure(
    tmp_path: Path, work: Callable[[Work], None]
) -> None:
    """As torch does when it is interrupted while it writes a file."""

    def insist(session: Session) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("unexpected pos 64 vs 0") from None

    work(insist)
    with pytest.raises(KeyboardInterrupt), StopSignal() as stop:
        run_all(plan_seeds(tmp_path, 0), host=host(stop))
    (run,) = plan_seeds(tmp_path, 0)
    state = run.folder.state()
    assert state is not None
    assert (state.state, state.error, run.status) == ("interrupted", None, "resume")
