"""Several runs at once: each in its slot, one that dies alone, all that stop together. The work is a small script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ditr.paths import project_dir
from ditr.record.views.results import Results
from ditr.record.views.teller import Teller
from ditr.runner.job_text import job_from, job_text
from ditr.runner.launchers import process
from ditr.runner.launchers.local import LocalLauncher
from ditr.runner.plan import PlannedRun, plan
from ditr.runner.queue import JobFailed, Look, Standing, run_at_once
from ditr.runner.run import RunOutcome
from ditr.runner.slots import Slot
from ditr.runner.stop import StopSignal
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

REGISTRY = Registry()
WORK = """
import fcntl, json, os, signal, socket, sys, time
from pathlib import Path
job = json.load(sys.stdin)
folder, seed = Path(job["folder"]), job["seed"]
state = {"run_key": job["key"], "spec_hash": job["spec_hash"], "name": "n", "variant": job["variant"], "seed": seed,
         "started_at": "2026-01-01T00:00:00+00:00", "pid": os.getpid(), "host": socket.gethostname()}
folder.mkdir(exist_ok=True)
(folder.parent / ".locks").mkdir(exist_ok=True)
lock = (folder.parent / ".locks" / f"{job['key']}.lock").open("w")
fcntl.flock(lock, fcntl.LOCK_EX)
def leave(how, error=None):
    (folder / "state.json").write_text(json.dumps(state | {"state": how, "error": error}))
def session(how):
    with file.open("a") as said: said.write(f"{number} {how}\\n")
def stop(*_):
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    session("stopped"); leave("interrupted"); sys.exit(0)
file = folder / "sessions.txt"
number = len(file.read_text().splitlines()) if file.exists() else 0
if seed == 99: time.sleep(30)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGUSR2, stop)
leave("running")
facts = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "threads": os.environ["OMP_NUM_THREADS"], "began": time.time(),
         "device": job["spec"]["execution"]["device"], "workers": job["spec"]["execution"]["workers"]}
print("seed", seed, "says hello")
if seed == 1: sys.exit("seed 1 has no luck")
if seed == 2: os.kill(os.getpid(), signal.SIGKILL)
if seed in (10, 11):
    (folder / "log.txt").write_text("line of the log\\n" * 20 + "ZeroDivisionError: in the middle\\n")
    leave("failed", "in the middle"); sys.exit(seed - 9)
time.sleep(30 if seed >= 90 else 6 if seed >= 80 and number == 0 else 0.3)
session("finished")
(folder / "facts.json").write_text(json.dumps(facts | {"ended": time.time()}))
leave("finished")
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "job.py"
    script.write_text(WORK)
    monkeypatch.setattr(process, "PYTHON", (sys.executable, str(script)))


def planned(runs: Path, *seeds: int) -> tuple[PlannedRun, ...]:
    spec = load_spec(project_dir() / "specs/baseline.yaml", registry=REGISTRY, overrides=[f"seeds={list(seeds)}"])
    return plan([spec], registry=REGISTRY, runs=runs, force=False)


def run(runs: tuple[PlannedRun, ...], *, slots: list[Slot], stop: StopSignal, look: Look) -> tuple[RunOutcome, ...]:
    return run_at_once(
        runs,
        launcher=LocalLauncher(slots, runs=runs[0].folder.path.parent),
        teller=Teller((), say=print),
        stop=stop,
        look=look,
    )


def silent(_: Standing) -> None:
    """Shows nothing."""


def facts_of(runs: Path, seed: int) -> dict[str, object]:
    (file,) = runs.glob(f"baseline-s{seed}-*/facts.json")
    return dict(json.loads(file.read_text()))


def test_a_job_gets_the_run_as_it_was_planned(tmp_path: Path) -> None:
    (run,) = planned(tmp_path, 7)
    again = job_from(job_text(run))
    assert (again.spec, again.seed, again.key, again.overrides) == (run.spec, 7, run.key, run.overrides)
    assert again.folder.path == run.folder.path
    assert again.runs


@pytest.mark.usefixtures("job")
def test_a_job_that_fails_or_dies_leaves_the_others_alone(tmp_path: Path) -> None:
    seen: list[Standing] = []
    with StopSignal() as stop:
        found = run(planned(tmp_path, 0, 1, 2, 3), slots=[Slot(None)] * 2, stop=stop, look=seen.append)
    assert [outcome.planned.seed for outcome in found] == [0, 1, 2, 3]
    assert [outcome.error is None for outcome in found] == [True, False, False, True]
    assert all(isinstance(found[at].error, JobFailed) for at in (1, 2))
    assert "ended with code 1" in str(found[1].error)
    assert "seed 1 has no luck" in str(found[1].error), "with the end of what it said"
    assert "was ended by signal 9 (Killed), as the kernel does when memory runs out" in str(found[2].error)
    assert [outcome.state.state for outcome in found if outcome.state] == ["finished", "failed", "failed", "finished"]
    rows = Results(tmp_path).query("select seed, state from results order by seed").rows
    assert rows == ((0, "finished"), (1, "failed"), (2, "failed"), (3, "finished"))
    left = sorted(path.name[:12] for path in tmp_path.glob(".*.job.txt"))
    assert left == [".baseline-s1", ".baseline-s2"], "their whole output is kept"
    assert all(len(standing.under_way) <= 2 for standing in seen)
    assert (len(seen[-1].ended), seen[-1].waiting) == (4, 0)


@pytest.mark.usefixtures("job")
def test_a_failed_run_is_told_with_the_end_of_its_log_and_a_mistake_as_the_message_that_it_is(tmp_path: Path) -> None:
    with StopSignal() as stop:
        failed, mistaken = run(planned(tmp_path, 10, 11), slots=[Slot(None)] * 2, stop=stop, look=silent)
    lines = str(failed.error).splitlines()
    assert lines[0] == "failed: in the middle"
    assert lines[1] == f"  the end of {failed.planned.folder.log_file}:"
    assert lines[2:] == ["    line of the log"] * 11 + ["    ZeroDivisionError: in the middle"]
    assert str(mistaken.error) == "in the middle"
    assert [one.error.mistake for one in (failed, mistaken) if isinstance(one.error, JobFailed)] == [False, True]
    assert not list(tmp_path.glob(".*.job.txt")), "the run's own log has it all"


@pytest.mark.usefixtures("job")
def test_each_gpu_has_one_job_at_a_time_and_the_cores_are_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    seeds = (3, 4, 5, 6)
    with StopSignal() as stop:
        run(planned(tmp_path, *seeds), slots=[Slot("0"), Slot("3")], stop=stop, look=silent)
    facts = [facts_of(tmp_path, seed) for seed in seeds]
    assert {(one["device"], one["threads"], one["workers"]) for one in facts} == {("cuda", "4", 2)}
    for gpu in ("0", "3"):
        mine = sorted((one["began"], one["ended"]) for one in facts if one["gpu"] == gpu)
        assert len(mine) == 2
        assert mine[0][1] <= mine[1][0], "the second begins when the first has ended"


@pytest.mark.usefixtures("job")
def test_when_asked_to_stop_all_jobs_save_and_the_rest_is_not_begun(tmp_path: Path) -> None:
    with StopSignal() as stop:
        stopped = planned(tmp_path, 90, 91, 92)

        def ask() -> None:
            wait_for(tmp_path, "*/state.json", count=2)
            stop.asked = True

        asking = threading.Thread(target=ask)
        asking.start()
        found = run(stopped, slots=[Slot(None)] * 2, stop=stop, look=silent)
        asking.join()
    assert [outcome.interrupted for outcome in found] == [True, True, True]
    assert [outcome.state.state if outcome.state else None for outcome in found] == ["interrupted", "interrupted", None]
    assert [run.status for run in planned(tmp_path, 90, 91, 92)] == ["resume", "resume", "new"]


@pytest.mark.usefixtures("job")
def test_what_is_finished_is_not_begun_again(tmp_path: Path) -> None:
    with StopSignal() as stop:
        run(planned(tmp_path, 0), slots=[Slot(None)], stop=stop, look=silent)
        (again,) = run(planned(tmp_path, 0), slots=[Slot(None)], stop=stop, look=silent)
    assert again.planned.status == "finished"
    assert again.state is not None


@pytest.mark.usefixtures("job")
def test_a_job_that_is_asked_to_stop_before_it_can_hear_is_interrupted_and_did_not_fail(tmp_path: Path) -> None:
    with StopSignal() as stop:

        def ask(standing: Standing) -> None:
            stop.asked = bool(standing.under_way) or stop.asked

        (found,) = run(planned(tmp_path, 99), slots=[Slot(None)], stop=stop, look=ask)
    assert (found.error, found.interrupted, found.state) == (None, True, None)


@pytest.mark.usefixtures("job")
def test_who_insists_ends_all_jobs_at_once(tmp_path: Path) -> None:
    def insist(standing: Standing) -> None:
        if len(list(tmp_path.glob("*/state.json"))) == 2:
            raise KeyboardInterrupt

    with StopSignal() as stop, pytest.raises(KeyboardInterrupt):
        run(planned(tmp_path, 90, 91), slots=[Slot(None)] * 2, stop=stop, look=insist)
    states = [run.folder.state() for run in planned(tmp_path, 90, 91)]
    assert [state.state for state in states if state] == ["interrupted", "interrupted"]
    for state in states:
        assert state is not None
        with pytest.raises(ProcessLookupError):
            os.kill(state.pid, 0)


@pytest.mark.usefixtures("job")
def test_jobs_of_a_killed_parent_go_on_to_their_end(tmp_path: Path) -> None:
    parent = f"""
from pathlib import Path
from ditr.runner.launchers import process
from ditr.runner.slots import Slot
from ditr.runner.stop import StopSignal
from tests.runner.test_queue import planned, run, silent
process.PYTHON = {process.PYTHON!r}
with StopSignal() as stop:
    run(planned(Path({str(tmp_path)!r}), 0, 3), slots=[Slot(None)] * 2, stop=stop, look=silent)
"""
    shell = subprocess.Popen([sys.executable, "-c", parent], cwd=project_dir())
    wait_for(tmp_path, "*/state.json", count=2)
    shell.kill()
    shell.wait()
    wait_for(tmp_path, "*/facts.json", count=2)
    until = time.monotonic() + 20
    while any(run.runs for run in planned(tmp_path, 0, 3)) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(list(tmp_path.glob(".*.job.txt"))) == 2
    with StopSignal() as stop:
        run(planned(tmp_path, 0, 3), slots=[Slot(None)] * 2, stop=stop, look=silent)
    assert not list(tmp_path.glob(".*.job.txt")), "the next call knows that they came to their end"


def wait_for(runs: Path, files: str, *, count: int) -> None:
    for _ in range(400):
        if len(list(runs.glob(files))) == count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{files}: {list(runs.glob(files))}")
