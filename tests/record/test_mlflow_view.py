from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ditr.cli.main import app
from ditr.errors import DitrError
from ditr.files import write_json
from ditr.record.folder import Record
from ditr.record.views.mlflow_view import PARENT_TAG, MlflowView
from tests.reference.finished_runs import finish_anew

# Of libraries under MLflow, not of ditr.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
EXPERIMENT = "synthrooms_tiny"


@pytest.fixture
def folder(make_run, migrated_store: Path) -> Record:  # type: ignore[no-untyped-def]
    made: Record = make_run("base", key="0000000001", state="interrupted")
    shutil.copy(migrated_store, made.path.parent / "mlflow.db")
    return made


def view(folder: Record) -> MlflowView:
    return MlflowView(folder.path.parent)


def change(folder: Record, **changes: Any) -> None:
    state = folder.state()
    assert state is not None
    folder.set_state(replace(state, **changes))


def client(folder: Record) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder.path.parent}/mlflow.db")


def children(folder: Record, wanted: str = "tags.`ditr.level` = 'run'") -> list[Any]:
    ours = client(folder)
    everywhere = [experiment.experiment_id for experiment in ours.search_experiments()]
    return list(ours.search_runs(everywhere, wanted))


def losses(folder: Record, run_id: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client(folder).get_metric_history(run_id, "loss")]


def finish(folder: Record, *, ap50: float = 0.5) -> None:
    write_json(folder.result, {"ap50": ap50, "infer_ms": None, "params_m": 2.0})
    change(folder, state="finished", wall_s=7.0)


def test_a_run_that_goes_on_is_one_run_and_nothing_is_sent_twice(folder: Record) -> None:
    view(folder).tell([folder])
    (first,) = children(folder)
    assert first.info.status == "KILLED"
    view(folder).tell([folder])
    folder.log(3, {"loss": 0.125})
    finish(folder)
    view(folder).tell([folder])
    (run,) = children(folder)
    assert run.info.run_id == first.info.run_id
    assert losses(folder, run.info.run_id) == [(0, 1.0), (1, 0.5), (2, 1 / 3), (3, 0.125)]
    assert run.info.status == "FINISHED"
    assert {name: run.data.metrics[f"final/{name}"] for name in ("ap50", "params_m", "wall_s")} == {
        "ap50": 0.5,
        "params_m": 2.0,
        "wall_s": 7.0,
    }
    assert run.data.params["epochs"] == "4"
    assert (run.data.params["engine"], run.data.params["precision"]) == ("minkowski", "float32"), "of before there were"
    assert run.data.params["checkpoint"] == "synthrooms_res16unet_mini"
    assert [given.dataset.digest for given in run.inputs.dataset_inputs] == ["d1" * 16]


def test_a_picture_that_is_being_drawn_is_not_sent(folder: Record) -> None:
    folder.panels.mkdir()
    for name in ("pr_curve.png", ".panel_0.png.1.part"):
        (folder.panels / name).write_bytes(b"x")
    view(folder).tell([folder])
    (run,) = children(folder)
    sent = client(folder).list_artifacts(run.info.run_id, "panels")
    assert [file.path for file in sent] == ["panels/pr_curve.png"]


def test_what_a_training_took_back_is_not_in_its_curve(folder: Record) -> None:
    """It was killed after steps 1 and 2, goes on from step 1, and logs them again: with equal losses, later."""
    view(folder).tell([folder])
    folder.rewind_metrics(1, {"loss": 0.5})
    for step in (1, 2, 3):
        row = {"step": step, "at": 4e9 + step, "metrics": {"loss": 1 / (step + 1)}}
        with folder.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")
    view(folder).tell([folder])
    (run,) = children(folder)
    assert losses(folder, run.info.run_id) == [(0, 1.0), (1, 0.5), (2, 1 / 3), (3, 0.25)]


def test_a_parent_sums_up_its_seeds(folder: Record, make_run) -> None:  # type: ignore[no-untyped-def]
    other = make_run("base", key="0000000002", state="running", seed=1)

    def summary() -> tuple[str, float | None, float | None]:
        (parent,) = children(folder, "tags.`ditr.level` = 'spec'")
        assert {run.data.tags[PARENT_TAG] for run in children(folder)} == {parent.info.run_id}
        assert parent.data.params["epochs"] == "4"
        assert "seed" not in parent.data.params
        return parent.info.status, parent.data.metrics.get("final/ap50"), parent.data.metrics.get("final/seeds")

    finish(folder)
    with other.lock():
        view(folder).tell([folder, other])
        assert summary() == ("RUNNING", 0.5, 1)
    change(other, state="failed", error="no room")
    view(folder).tell([folder, other])
    assert summary() == ("FAILED", 0.5, 1)
    (failed,) = children(folder, "tags.`ditr.run_key` = '0000000002'")
    assert failed.data.tags["ditr.error"] == "no room"
    finish(other, ap50=0.25)
    view(folder).catch_up()
    assert summary() == ("FINISHED", 0.375, 2)
    shutil.rmtree(other.path)
    view(folder).catch_up()
    assert summary() == ("FINISHED", 0.5, 1)


def test_a_run_that_was_killed_before_it_could_tell_is_caught_up(folder: Record) -> None:
    change(folder, state="running")
    with folder.lock():
        view(folder).tell([folder])
        assert children(folder)[0].info.status == "RUNNING"
        finish(folder)  # and here it is killed, while it sends a file
        half = folder.path.parent / "mlartifacts" / children(folder)[0].info.run_id / "artifacts/.artifact.uploading.x"
        half.write_text("{")
    view(folder).catch_up()
    (run,) = children(folder)
    assert not half.exists()
    assert (run.info.status, run.data.metrics["final/ap50"]) == ("FINISHED", 0.5)


def test_a_rebuild_makes_the_same_again(
    folder: Record,
    make_run,  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finish(folder)
    make_run("fpn", key="0000000003")

    def content() -> list[Any]:
        runs = children(folder)
        return sorted(
            (run.info.run_name, run.info.status, run.data.metrics, run.data.params, run.info.start_time) for run in runs
        )

    view(folder).catch_up()
    before = content()
    assert len(before) == 2
    assert view(folder).rebuild() == 2
    assert content() == before
    (folder.path.parent / "mlflow.db").write_bytes(b"damaged")
    with pytest.raises(DitrError, match="or damaged") as error:
        view(folder).catch_up()
    assert "ditr results rebuild" in error.value.fix
    monkeypatch.setenv("DITR_RUNS", str(folder.path.parent))
    done = CliRunner().invoke(app, ["results", "rebuild"], catch_exceptions=False)
    assert done.stdout.splitlines() == [f"{name}: 2 records" for name in ("results.duckdb", "mlflow.db")]
    assert content() == before


def test_no_files_stay_of_runs_that_are_no_longer_there(folder: Record, make_run) -> None:  # type: ignore[no-untyped-def]
    finish(folder)
    other = make_run("fpn", key="0000000003")
    view(folder).catch_up()
    files = folder.path.parent / "mlartifacts"
    assert len(list(files.iterdir())) == 2
    view(folder).rebuild()
    assert {path.name for path in files.iterdir()} == {run.info.run_id for run in children(folder)}
    shutil.rmtree(other.path)
    view(folder).catch_up()
    (run,) = children(folder)
    assert [path.name for path in files.iterdir()] == [run.info.run_id]


def test_the_page_of_an_experiment_is_a_view_that_it_holds(folder: Record) -> None:
    view(folder).tell([folder])
    (page,) = view(folder).pages().values()
    experiment = client(folder).get_experiment_by_name(EXPERIMENT)
    assert page.startswith(f"#/experiments/{experiment.experiment_id}/runs?")
    shown = json.loads(experiment.tags["mlflow.sharedViewState." + page.partition("viewStateShareKey=")[2]])
    assert "metrics.`final/ap50`" in shown["selectedColumns"]


def test_what_is_not_to_be_tracked_or_cannot_be_read_is_not_there(folder: Record, make_run) -> None:  # type: ignore[no-untyped-def]
    private = make_run("private", key="0000000002")
    private.spec.write_text(private.spec.read_text().replace("mlflow: true", "mlflow: false"))
    damage: list[Callable[[Record], object]] = [
        lambda run: run.state_file.write_text("{"),
        lambda run: run.provenance.write_text("[]"),
        lambda run: run.result.write_text("null"),
        lambda run: run.spec.write_text("name: [\n"),
    ]
    for index, harm in enumerate(damage):
        harm(make_run("damaged", key=f"000000001{index}"))
    view(folder).catch_up()
    assert [run.data.tags["ditr.folder"] for run in children(folder)] == [folder.path.name]


def test_a_record_that_mlflow_does_not_take_keeps_it_from_no_other(folder: Record, make_run) -> None:  # type: ignore[no-untyped-def]
    odd, torn = make_run("odd", key="0000000002"), make_run("torn", key="0000000003")
    odd.log(4, {"loss<": 1.0})
    torn.metrics.write_text('{"step": {}}\n')
    finish_anew(odd)
    finish_anew(torn)
    change(folder, state="finished")
    with pytest.raises(DitrError, match=f"{odd.path.name}: .*; {torn.path.name}: unreadable metrics.jsonl") as told:
        view(folder).catch_up()
    assert told.value.fix.endswith(f": ditr rm {torn.path.name}"), "what is no damage is not to be removed"
    assert folder.path.name in {
        run.data.tags["ditr.folder"] for run in children(folder, "attributes.status = 'FINISHED'")
    }


@pytest.mark.slow
def test_processes_that_make_the_store_at_once_wait_for_each_other(make_run) -> None:  # type: ignore[no-untyped-def]
    folders = [make_run("base", key=f"000000000{index}", seed=index) for index in range(2)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_tell, [folder.path for folder in folders], chunksize=1)
    assert len(children(folders[0])) == 2


def _tell(path: Path) -> None:
    folder = Record(path)
    view(folder).tell([folder])


def test_a_check_has_a_metric_for_each_thing_it_looked_at(folder: Record) -> None:
    write_json(folder.result, {"failed_checks": 2, "stages": [3, 4]})
    rows = [
        {"stage": 3, "name": "s8_values", "value": 0.25, "limit": "<= 0.001", "passed": False, "detail": ""},
        {"stage": 3, "name": "s8_same_voxels", "value": None, "limit": "the backbone's", "passed": True, "detail": ""},
        {"stage": 4, "name": "s8_same_voxels", "value": None, "limit": "the backbone's", "passed": False, "detail": ""},
    ]
    folder.checks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    change(folder, kind="check", state="finished")
    view(folder).tell([folder])
    (run,) = children(folder)
    found = {name: value for name, value in run.data.metrics.items() if name.startswith("check/")}
    assert found == {
        "check/pyramid/s8_values": 0.25,
        "check/pyramid/s8_same_voxels": 1.0,
        "check/injection/s8_same_voxels": 0.0,
        "check/failed": 2.0,
    }
    assert run.data.tags["ditr.kind"] == "check"
    assert run.data.tags["ditr.failed_checks"] == "2"
    assert run.data.params["stages"] == "3,4"
    assert "learning_rate" not in run.data.params
    assert PARENT_TAG not in run.data.tags
