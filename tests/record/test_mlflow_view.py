from __future__ import annotations

import json
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ditr.record.folder import RunFolder, RunState, write_json
from ditr.record.views.mlflow_view import PARENT_TAG, MlflowTracker, pages, store_uri

# Of libraries under MLflow, not of ditr.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def folder(make_run, migrated_store: Path) -> RunFolder:  # type: ignore[no-untyped-def]
    made: RunFolder = make_run("base", key="0000000001", state="running")
    shutil.copy(migrated_store, made.path.parent / "mlflow.db")
    return made


def tracker(folder: RunFolder) -> MlflowTracker:
    return MlflowTracker(folder, dataset="tiny", dataset_digest="d1" * 16, dataset_root=folder.path.parent)


def state_of(folder: RunFolder) -> RunState:
    state = folder.state()
    assert state is not None
    return state


def client(folder: RunFolder) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store_uri(folder.path.parent))


def losses(folder: RunFolder, run_id: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client(folder).get_metric_history(run_id, "loss")]


def test_a_resumed_run_goes_on_in_the_same_mlflow_run_and_logs_nothing_twice(folder: RunFolder) -> None:
    first = tracker(folder)
    run_id = first.start(state_of(folder), params={"epochs": 2})
    first.sync()
    folder.log(3, {"loss": 0.125})
    first.finish(replace(state_of(folder), state="interrupted"))
    assert client(folder).get_run(run_id).info.status == "KILLED"

    # The training state was saved before step 3: the second session logs it again.
    second = tracker(folder)
    assert second.start(replace(state_of(folder), mlflow_run=run_id), params={"epochs": 2}) == run_id
    folder.rewind_metrics(3, {"loss": 0.125})
    for step in (3, 4):
        folder.log(step, {"loss": 1 / 2**step})
    write_json(folder.result, {"ap50": 0.5, "infer_ms": None})
    second.finish(replace(state_of(folder), state="finished"))
    assert losses(folder, run_id) == [(0, 1.0), (1, 0.5), (2, 1 / 3), (3, 0.125), (4, 0.0625)]
    run = client(folder).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["final/ap50"] == 0.5
    assert run.data.params == {"epochs": "2"}
    assert [given.dataset.digest for given in run.inputs.dataset_inputs] == ["d1" * 16]


def test_a_parent_sums_up_its_seeds(folder: RunFolder, make_run) -> None:  # type: ignore[no-untyped-def]
    other = make_run("base", key="0000000002", state="running")
    first, second = tracker(folder), tracker(other)
    runs = [first.start(state_of(folder), params={"seed": 0, "epochs": 2, "gate": None})]
    runs.append(second.start(replace(state_of(other), run_key="0000000002"), params={"seed": 1, "epochs": 2}))
    (parent,) = {client(folder).get_run(run_id).data.tags[PARENT_TAG] for run_id in runs}

    def summary() -> tuple[str, float | None, float | None]:
        run = client(folder).get_run(parent)
        return run.info.status, run.data.metrics.get("final/ap50"), run.data.metrics.get("final/seeds")

    assert client(folder).get_run(parent).data.params == {"epochs": "2"}
    assert summary() == ("RUNNING", None, None)
    write_json(folder.result, {"ap50": 0.5})
    first.finish(replace(state_of(folder), state="finished", wall_s=7.0))
    assert client(folder).get_run(runs[0]).data.metrics["final/wall_s"] == 7.0
    assert summary() == ("RUNNING", 0.5, 1)
    second.finish(replace(state_of(other), state="failed", error="no room"))
    assert client(folder).get_run(runs[1]).data.tags["ditr.error"] == "no room"
    assert summary() == ("FAILED", 0.5, 1)

    # Run again with --force, the failed seed is a new MLflow run and counts once.
    again = tracker(other)
    again.start(replace(state_of(other), run_key="0000000002"), params={"seed": 1, "epochs": 2})
    assert summary()[0] == "RUNNING"
    write_json(other.result, {"ap50": 0.25})
    again.finish(replace(state_of(other), state="finished"))
    assert summary() == ("FINISHED", 0.375, 2)


def test_the_page_of_an_experiment_is_a_view_that_it_holds(folder: RunFolder) -> None:
    following = tracker(folder)
    following.start(state_of(folder), params={})
    following.finish(replace(state_of(folder), state="interrupted"))
    (page,) = pages(folder.path.parent).values()
    experiment = client(folder).get_experiment_by_name("tiny")
    assert page.startswith(f"#/experiments/{experiment.experiment_id}/runs?")
    view = json.loads(experiment.tags["mlflow.sharedViewState." + page.partition("viewStateShareKey=")[2]])
    assert "metrics.`final/ap50`" in view["selectedColumns"]


def test_a_deleted_store_is_made_again_from_the_folder(folder: RunFolder) -> None:
    following = tracker(folder)
    new = following.start(replace(state_of(folder), mlflow_run="0" * 32), params={})
    following.finish(replace(state_of(folder), state="interrupted"))
    assert new != "0" * 32
    assert losses(folder, new) == [(0, 1.0), (1, 0.5), (2, 1 / 3)]


@pytest.mark.slow
def test_processes_that_make_the_store_at_once_wait_for_each_other(make_run) -> None:  # type: ignore[no-untyped-def]
    folders = [make_run("base", key=f"000000000{index}", state="running") for index in range(2)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        runs = pool.map(_track, [folder.path for folder in folders], chunksize=1)
    assert [losses(folder, run_id)[0] for folder, run_id in zip(folders, runs, strict=True)] == [(0, 1.0)] * 2


def _track(path: Path) -> str:
    folder = RunFolder(path)
    following = tracker(folder)
    run_id = following.start(state_of(folder), params={})
    following.finish(replace(state_of(folder), state="interrupted"))
    return run_id


def test_a_check_has_a_metric_for_each_thing_it_looked_at(folder: RunFolder) -> None:
    write_json(folder.result, {"failed_checks": 1})
    rows = [
        {"stage": 3, "name": "s8_values", "value": 0.25, "limit": "<= 0.001", "passed": False, "detail": ""},
        {"stage": 3, "name": "s8_key", "value": None, "limit": "the backbone's", "passed": True, "detail": ""},
        {"stage": 4, "name": "s8_key", "value": None, "limit": "the backbone's", "passed": False, "detail": ""},
    ]
    folder.checks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    state = replace(state_of(folder), kind="check", state="finished")
    tracker(folder).publish(state, params={"stages": "3,4"})
    run_id = tracker(folder).publish(state, params={"stages": "3,4"})

    run = client(folder).get_run(run_id)
    found = {name: value for name, value in run.data.metrics.items() if name.startswith("check/")}
    assert found == {
        "check/pyramid/s8_values": 0.25,
        "check/pyramid/s8_key": 1.0,
        "check/injection/s8_key": 0.0,
        "check/failed": 2.0,
    }
    assert run.data.tags["ditr.kind"] == "check"
    assert run.data.tags["ditr.failed_checks"] == "2"
    assert run.data.params == {"stages": "3,4"}
    experiment = run.info.experiment_id
    wanted = "tags.`ditr.kind` = 'check'"
    assert len(client(folder).search_runs([experiment], wanted)) == 1, "a repeated check replaces the one of before"
