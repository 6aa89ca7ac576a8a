"""Several runs at once: each in its slot, one that dies alone, all that stop together. The work is a small script."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ditr.errors import DitrError
from ditr.paths import project_dir
from ditr.runner import queue
from ditr.runner.plan import PlannedRun, plan
from ditr.runner.queue import CPU, JobDied, Slot, job_from, job_text, run_at_once
from ditr.runner.stop import StopSignal
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

REGISTRY = Registry()
WORK = """
import json, os, signal, sys, time
from pathlib import Path
job = json.load(sys.stdin)
folder, seed = Path(job["folder"]), job["seed"]
state = {"run_key": job["key"], "spec_hash": job["spec_hash"], "name": "n", "variant": job["variant"], "seed": seed,
         "started_at": "2026-01-01T00:00:00+00:00"}
def leave(how):
    (folder / "state.json").write_text(json.dumps(state | {"state": how}))
def stop(*_):
    leave("interrupted"); sys.exit(0)
signal.signal(signal.SIGINT, stop)
leave("running")
facts = {"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "threads": os.environ["OMP_NUM_THREADS"], "began": time.time(),
         "device": job["spec"]["execution"]["device"], "workers": job["spec"]["execution"]["workers"]}
print("seed", seed, "says hello")
if seed == 1: sys.exit("seed 1 has no luck")
if seed == 2: os.kill(os.getpid(), signal.SIGKILL)
time.sleep(30 if seed >= 90 else 0.3)
(folder / "facts.json").write_text(json.dumps(facts | {"ended": time.time()}))
leave("finished")
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "job.py"
    script.write_text(WORK)
    monkeypatch.setattr(queue, "JOB", (sys.executable, str(script)))


def planned(runs: Path, *seeds: int) -> tuple[PlannedRun, ...]:
    spec = load_spec(project_dir() / "specs/baseline.yaml", registry=REGISTRY, overrides=[f"seeds={list(seeds)}"])
    return plan([spec], registry=REGISTRY, runs=runs, force=False)


def silent(runs: Sequence[PlannedRun]) -> None:
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
    with StopSignal() as stop:
        found = run_at_once(planned(tmp_path, 0, 1, 2, 3), slots=[Slot(CPU)] * 2, stop=stop, look=silent)
    assert [outcome.planned.seed for outcome in found] == [0, 1, 2, 3]
    assert [outcome.error is None for outcome in found] == [True, False, False, True]
    assert all(isinstance(found[at].error, JobDied) for at in (1, 2))
    assert "ended with code 1" in str(found[1].error)
    assert "seed 1 has no luck" in str(found[1].error), "with the end of what it said"
    assert "was ended by signal 9" in str(found[2].error)
    left = sorted(path.name[:12] for path in tmp_path.glob(".*.job.txt"))
    assert left == [".baseline-s1", ".baseline-s2"], "their whole output is kept"


@pytest.mark.usefixtures("job")
def test_each_gpu_has_one_job_at_a_time_and_the_cores_are_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue.os, "sched_getaffinity", lambda _: set(range(8)))
    seeds = (3, 4, 5, 6)
    with StopSignal() as stop:
        run_at_once(planned(tmp_path, *seeds), slots=[Slot("0"), Slot("3")], stop=stop, look=silent)
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
            while len(list(tmp_path.glob("*/state.json"))) < 2:
                time.sleep(0.05)
            stop.asked = True

        asking = threading.Thread(target=ask)
        asking.start()
        found = run_at_once(stopped, slots=[Slot(CPU)] * 2, stop=stop, look=silent)
        asking.join()
    assert [outcome.interrupted for outcome in found] == [True, True, True]
    assert [outcome.state.state if outcome.state else None for outcome in found] == ["interrupted", "interrupted", None]
    assert [run.status for run in planned(tmp_path, 90, 91, 92)] == ["resume", "resume", "new"]


@pytest.mark.usefixtures("job")
def test_what_is_finished_is_not_begun_again(tmp_path: Path) -> None:
    with StopSignal() as stop:
        run_at_once(planned(tmp_path, 0), slots=[Slot(CPU)], stop=stop, look=silent)
        (again,) = run_at_once(planned(tmp_path, 0), slots=[Slot(CPU)], stop=stop, look=silent)
    assert again.planned.status == "finished"
    assert again.state is not None


@pytest.mark.parametrize(("jobs", "gpus"), [(2, "0"), (None, "0;1"), (None, ""), (None, "gpu0")])
def test_a_senseless_choice_of_places_is_one_message(jobs: int | None, gpus: str) -> None:
    from ditr.cli.run import _slots

    with pytest.raises(DitrError, match=r"--jobs is for|not a list of GPUs"):
        _slots(jobs, gpus)
    assert _slots(None, "0,0,1") == (Slot("0"), Slot("0"), Slot("1"))
    assert _slots(2, None) == (Slot(CPU), Slot(CPU))
