"""The real command on two frames to train on and two to evaluate: three arms, skip, repeat, stop and go on."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ditr.paths import project_dir
from tests.e2e.shell import ARMS, SMALL, Shell, command, options, run_arguments

pytestmark = pytest.mark.slow

NOT_COMPARED = ("step_ms", "data_ms", "infer_ms", "peak_mem_mb", "git", "dirty")


def logged(folder: Path, *, without_times: bool = True) -> list[tuple[int, dict[str, float]]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    times = ("_ms", "_mb") if without_times else ()
    return [
        (row["step"], {name: value for name, value in row["metrics"].items() if not name.endswith(times)})
        for row in rows
    ]


def result(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "result.json").read_text())
    measured = ("step_ms_mean", "train_peak_mem_mb", "infer_peak_mem_mb")
    statistics = {name: value for name, value in content["statistics"].items() if name not in measured}
    return {name: value for name, value in content.items() if name not in NOT_COMPARED} | {"statistics": statistics}


def assert_same_numbers(one: Path, other: Path) -> None:
    assert logged(one) == logged(other)
    assert result(one) == result(other)
    weights = "checkpoints/model.safetensors"
    assert (one / weights).read_bytes() == (other / weights).read_bytes()


def test_three_arms_are_three_rows_by_variant(done: Shell) -> None:
    sql = "select variant, seed, ap50, state, epochs, feature_source, scales from results order by variant"
    asked = done.ditr("query", sql, "--format", "csv")
    assert asked.returncode == 0, asked.stderr
    rows = list(csv.DictReader(asked.stdout.splitlines()))
    assert [row["variant"] for row in rows] == list(ARMS)
    assert {row["state"] for row in rows} == {"finished"}
    assert all(0 <= float(row["ap50"]) <= 1 for row in rows)
    assert [row["feature_source"] for row in rows] == ["", "vit_mini14_reg4", "vit_mini14_reg4"]
    assert [row["scales"] for row in rows] == ["", "", "8,4,2,1"]


def test_frames_and_metrics_are_rows_too(done: Shell) -> None:
    sql = (
        "select r.variant, (select count(*) from frames f where f.run_key = r.run_key) as frames, "
        "(select count(*) from metrics m where m.run_key = r.run_key and m.name = 'train/loss') as steps "
        "from results r order by r.variant"
    )
    asked = done.ditr("query", sql, "--format", "json")
    assert json.loads(asked.stdout) == [{"variant": arm, "frames": 2, "steps": 4} for arm in ARMS]


def test_a_run_folder_holds_the_whole_run(done: Shell) -> None:
    folder = done.folder("fpn_inject")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    expected = {
        "spec.resolved.yaml",
        "provenance.json",
        "state.json",
        "metrics.jsonl",
        "frames.jsonl",
        "result.json",
        "matches.parquet",
        "log.txt",
        "checkpoints/state.pt",
        "checkpoints/model.safetensors",
        "panels/pr_curve.png",
    }
    assert expected <= files
    assert sum(name.startswith("panels/panel_") for name in files) == 1
    assert not [name for name in files if Path(name).name.startswith(".")], "no temporary file is left"


def test_the_resolved_spec_is_the_same_experiment(done: Shell) -> None:
    folder = done.folder("fpn_inject")
    again = done.ditr("run", str(folder / "spec.resolved.yaml"))
    assert again.returncode == 0, again.stderr
    assert "finished before" in again.stdout


def test_mlflow_has_an_experiment_with_a_parent_and_a_child_for_each_arm(done: Shell) -> None:
    script = f"""
import json
from mlflow import MlflowClient
client = MlflowClient("sqlite:///{done.runs / "mlflow.db"}")
experiment = client.get_experiment_by_name("synthrooms_tiny")
runs = client.search_runs([experiment.experiment_id])
print(json.dumps([{{
    "id": run.info.run_id, "status": run.info.status, "tags": run.data.tags, "metrics": run.data.metrics,
    "params": run.data.params, "datasets": [given.dataset.digest for given in run.inputs.dataset_inputs],
    "steps": [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")],
    "files": [file.path for file in client.list_artifacts(run.info.run_id)],
}} for run in runs]))
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    runs = json.loads(told.stdout.splitlines()[-1])
    parents = {run["id"]: run for run in runs if run["tags"]["ditr.level"] == "spec"}
    children = [run for run in runs if run["tags"]["ditr.level"] == "run"]
    assert len(parents) == len(children) == 3
    for run in children:
        assert parents[run["tags"]["mlflow.parentRunId"]]["tags"]["ditr.variant"] == run["tags"]["ditr.variant"]
        assert run["status"] == "FINISHED"
        assert run["steps"] == [1, 2, 3, 4]
        assert run["params"]["learning_rate"] == "0.0001"
        assert len(run["datasets"]) == 1
        assert {"spec.resolved.yaml", "provenance.json", "result.json", "panels"} <= set(run["files"])
        folder = done.runs / run["tags"]["ditr.folder"]
        for score in ("ap", "ap50", "ap25", "ap_to_90", "ap_to_95"):
            assert run["metrics"][f"final/{score}"] == result(folder)[score]
            assert f"val/{score}" in run["metrics"]


def test_a_finished_run_is_skipped_and_says_so(done: Shell) -> None:
    before = (done.folder("baseline") / "state.json").read_bytes()
    again = done.ditr(*run_arguments("baseline"))
    assert again.returncode == 0, again.stderr
    assert "finished before, skipped (--force runs it again)" in again.stdout
    assert (done.folder("baseline") / "state.json").read_bytes() == before


def test_force_runs_again_with_the_same_numbers(done: Shell) -> None:
    again = done.ditr(*run_arguments("baseline", extra=("tracking.mlflow=false",)), "--force")
    assert again.returncode == 0, again.stderr
    (kept,) = (done.runs / ".replaced").glob("baseline-*")
    assert_same_numbers(done.folder("baseline"), kept)


def test_an_evaluation_of_a_runs_weights_is_a_row_with_its_numbers(done: Shell, tmp_path: Path) -> None:
    shell = Shell(tmp_path, done.cache)
    shutil.copytree(done.runs, shell.runs)
    run = shell.folder("fpn_inject")
    asked = shell.ditr("eval", "specs/fpn_inject.yaml", "--checkpoint", str(run), *options(SMALL))
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert "evaluated all 2 frames of val" in asked.stdout
    (folder,) = shell.runs.glob("fpn_inject-eval-*")
    assert (folder / "matches.parquet").read_bytes() == (run / "matches.parquet").read_bytes()
    assert (folder / "panels" / "pr_curve.png").is_file()
    sql = "select kind, ap, ap50, ap25, state from results where name = 'fpn_inject' order by kind"
    ours, theirs = json.loads(shell.ditr("query", sql, "--format", "json").stdout)
    assert ours == theirs | {"kind": "eval"}
    assert "fpn_inject-eval-" in shell.ditr("ls").stdout
    script = f"""
from mlflow import MlflowClient
client = MlflowClient("sqlite:///{shell.runs / "mlflow.db"}")
experiment = client.get_experiment_by_name("synthrooms_tiny")
(run,) = client.search_runs([experiment.experiment_id], "tags.`ditr.kind` = 'eval'")
print(run.info.status, run.data.metrics["final/ap50"], "mlflow.parentRunId" in run.data.tags)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == f"FINISHED {ours['ap50']} False"


def test_missing_data_is_said_before_anything_starts(done: Shell, tmp_path: Path) -> None:
    shell = Shell(tmp_path, done.cache)
    ran = shell.ditr("run", "specs/baseline.yaml", "specs/scannet200_sv/fpn_inject.yaml")
    assert ran.returncode == 2
    assert str(tmp_path / "data" / "scannet200-sv") in ran.stderr
    assert "DITR_DATA" in ran.stderr
    assert "ditr run specs/fpn_inject.yaml" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not shell.runs.exists(), "nothing was started"


def wait_for_rows(shell: Shell, count: int) -> None:
    for _ in range(1200):
        files = list(shell.runs.glob("*/metrics.jsonl"))
        if files and files[0].read_text().count("\n") >= count:
            return
        time.sleep(0.1)
    raise AssertionError("training did not start")


def test_jobs_at_once_that_were_stopped_give_the_numbers_of_one_after_the_other_beside_one_that_fails(
    done: Shell, tmp_path: Path
) -> None:
    shell = Shell(tmp_path, done.cache)
    broken = tmp_path / "broken.yaml"
    base = os.path.relpath(project_dir() / "specs/bifusion.yaml", tmp_path)
    broken.write_text(f"extends: {base}\nname: broken\nschedule: {{learning_rate: 100.0, weight_decay: 1.0e+6}}\n")
    arguments = [*run_arguments("baseline", "bifusion"), str(broken), "--jobs", "2"]
    process = subprocess.Popen(
        command(*arguments), cwd=project_dir(), env=shell.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    wait_for_rows(shell, 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "stopped and saved; to go on: ditr run specs/baseline.yaml" in err
    assert "--jobs=2\n" in err
    assert not list(shell.runs.glob("broken-*")), "what waited was not begun"

    ran = shell.ditr(*arguments)
    assert ran.returncode == 2, ran.stdout + ran.stderr
    for arm in ("baseline", "bifusion"):
        assert_same_numbers(shell.folder(arm), done.folder(arm))
    failed = shell.folder("broken").name
    assert f"{failed}: error[run]: " in ran.stderr
    assert "no step was skipped" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not list(shell.runs.glob(".*.job.txt"))
    provenance = json.loads((shell.folder("baseline") / "provenance.json").read_text())
    assert provenance["command"][1] == "run", "what the user typed"
