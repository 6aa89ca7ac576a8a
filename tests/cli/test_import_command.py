from __future__ import annotations

import hashlib
import json
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ditr.cli.main import app, main
from ditr.paths import runs_dir
from ditr.scannet.esam_log import read_esam_log
from ditr.scannet.imported_record import metric_rows, result_of
from tests.reference.mmengine_log import Training, scalars, text_log

# Of libraries under MLflow, not of ditr.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

BEGAN = datetime(2025, 7, 6, 20, 59, 52)
SCORES = {64: (0.63, 0.82, 0.9), 128: (0.6243, 0.8149, 0.9102)}
TRAINING = Training(
    iterations=120, validations=SCORES, nan_inst={(1, 50), (1, 100), (7, 100)}, nan_seg={(7, 100), (9, 50)}
)


@pytest.fixture
def store(migrated_store: Path) -> None:
    runs_dir().mkdir(parents=True)
    shutil.copy(migrated_store, runs_dir() / "mlflow.db")


def written(tmp_path: Path, text: str, *, name: str = "20250706_205952.log") -> Path:
    file = tmp_path / "work_dirs" / "sv3d_ca" / "20250706_205951" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def ditr(*arguments: str) -> str:
    asked = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert asked.exit_code == 0
    return asked.stdout


def rows(sql: str) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads(ditr("query", sql, "--format", "json"))
    return answer


def mlflow_runs() -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs_dir()}/mlflow.db")
    found = [(one, client.search_runs([one.experiment_id])) for one in client.search_experiments()]
    return [(one.name, run) for one, runs in found for run in runs]


@pytest.mark.usefixtures("store")
def test_a_training_becomes_a_row_beside_runs_and_a_run_in_mlflow(tmp_path: Path) -> None:
    file = written(tmp_path, text_log(TRAINING, began=BEGAN))
    said = ditr("import", "esam-log", str(file))
    lines = dict(line.split("  ", 1) for line in said.splitlines()[1:])
    told = {name: value.strip() for name, value in lines.items()}
    assert (told["epochs"], told["windows"]) == ("128", "256")
    assert [told[name] for name in ("ap", "ap50", "ap25")] == ["0.6243", "0.8149", "0.9102"]
    blind = [told[name] for name in ("nan_windows", "nan_windows/inst_loss", "nan_windows/seg_loss")]
    assert blind == ["4", "3", "2"]
    assert (told["lr_first"], told["lr_last"]) == ("0.0001", "0")

    columns = "kind, variant, state, name, dataset, epochs, ap, ap50, ap25, nan_windows, n_frames, esam_compat, device"
    (row,) = rows(
        f"select {columns}, checkpoint, seed, params_m, git, strftime(started_at, '%Y-%m-%d') as day from results"
    )
    assert row == {
        "kind": "imported",
        "variant": "imported",
        "state": "finished",
        "name": "esam_sv_scannet200_ca",
        "dataset": "scannet200_sv",
        "epochs": 128,
        "ap": 0.6243,
        "ap50": 0.8149,
        "ap25": 0.9102,
        "nan_windows": 4,
        "n_frames": 2780,
        "esam_compat": True,
        "device": "NVIDIA GeForce RTX 4090",
        "checkpoint": "work_dirs/tmp/mask3d_scannet200.pth",
        "seed": None,
        "params_m": None,
        "git": None,
        "day": "2025-07-06",
    }
    assert rows("select step, value from metrics where name = 'val/ap50' order by 1") == [
        {"step": 64 * 120, "value": 0.82},
        {"step": 128 * 120, "value": 0.8149},
    ]

    (provenance,) = (json.loads(path.read_text()) for path in runs_dir().glob("*/provenance.json"))
    assert provenance["source"].endswith(file.name)
    assert str(tmp_path) not in provenance["source"]
    assert provenance["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (provenance["log_says"]["torch"], provenance["git"]) == ("1.13.1+cu116", None)

    ((experiment, run),) = mlflow_runs()
    assert experiment == "scannet200_sv", "where its arms are"
    assert run.data.tags["ditr.kind"] == "imported"
    assert run.info.status == "FINISHED"
    assert run.data.metrics["final/ap50"] == 0.8149
    assert run.data.metrics["train/nan_windows"] == 4

    # Again, and told that it was another data set: the same row, no second run. A rebuilt table keeps it.
    ditr("import", "esam-log", str(file), "--dataset", "scannet200_mv")
    ditr("results", "rebuild")
    assert rows("select kind, dataset, ap50 from results") == [
        {"kind": "imported", "dataset": "scannet200_mv", "ap50": 0.8149}
    ]
    assert [experiment for experiment, _ in mlflow_runs()] == ["scannet200_mv"]
    assert "esam_sv_scannet200_ca-imported-" in ditr("ls")


@pytest.mark.parametrize("kind", ["text", "scalars"])
def test_metrics_have_the_names_of_ditrs_runs_and_no_value_that_is_none(tmp_path: Path, kind: str) -> None:
    text = text_log(TRAINING, began=BEGAN) if kind == "text" else scalars(TRAINING)
    by_step = {row["step"]: row["metrics"] for row in metric_rows(read_esam_log(written(tmp_path, text)))}
    assert list(by_step) == sorted(by_step)
    json.dumps([*by_step.values()], allow_nan=False)
    first, window = by_step[50], TRAINING.window(1, 50)
    assert first.keys().isdisjoint({"train/loss", "train/inst_loss"}), "NaN is no number"
    assert first["train/nan_windows"] == 1
    assert first["train/seg_loss"] == pytest.approx(window["seg_loss"], abs=1e-4)
    assert first["train/step_ms"] == pytest.approx(1e3 * (window["time"] - window["data_time"]), abs=0.2)
    assert first["train/data_ms"] == pytest.approx(1e3 * window["data_time"], abs=0.1)
    assert first["train/mem_mb"] == window["memory"]
    assert by_step[8 * 120 + 50]["train/nan_windows"] == 4
    assert by_step[128 * 120]["val/ap"] == 0.6243
    assert by_step[128 * 120]["val/infer_ms"] == pytest.approx(54.1)


def test_the_result_counts_what_is_nan_by_name_and_names_the_best(tmp_path: Path) -> None:
    log = read_esam_log(written(tmp_path, scalars(TRAINING), name="scalars.json"))
    result = result_of(log, dataset="scannet200_sv")
    statistics = result["statistics"]
    assert result["nan_windows"] == 4
    assert {name: statistics[f"nan_windows/{name}"] for name in ("loss", "inst_loss", "seg_loss")} == {
        "loss": 4,
        "inst_loss": 3,
        "seg_loss": 2,
    }
    assert (result["ap50"], statistics["best_ap50"], statistics["best_epoch"]) == (0.8149, 0.82, 64)
    assert result["peak_mem_mb"] == max(TRAINING.window(*window)["memory"] for window in TRAINING.windows())
    assert (result["device"], result["n_frames"], result["checkpoint"]) == (None, None, None), "scalars do not say"


@pytest.mark.usefixtures("store")
def test_a_training_that_stopped_early_is_interrupted_and_has_no_result(tmp_path: Path) -> None:
    file = written(tmp_path, text_log(TRAINING, began=BEGAN, last=35))
    ditr("import", "esam-log", str(file), "--name", "short")
    assert rows("select name, state, epochs, ap, nan_windows from results") == [
        {"name": "short", "state": "interrupted", "epochs": 35, "ap": None, "nan_windows": 4}
    ]
    ((_, run),) = mlflow_runs()
    assert run.info.status == "KILLED"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.log"], "no such file"),
        ([str(Path(__file__))], "no whole record of a training"),
        ([str(Path(__file__)), "--name", "ESAM!"], "'ESAM!' is no name"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ditr", "import", "esam-log", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said
    assert not runs_dir().exists()
