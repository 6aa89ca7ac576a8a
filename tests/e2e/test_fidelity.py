"""A prepared ScanNet200-SV folder, published weights and ESAM's log, through the real commands at full model size."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ditr.data.dataset import Dataset
from ditr.data.info_pickle import read_infos, write_infos
from ditr.data.scannet_sv import INFO_FILES, MANIFEST
from ditr.paths import project_dir
from tests.e2e import warm
from tests.reference import esam_checkpoint, mmengine_log

pytestmark = pytest.mark.slow

ARMS = ("baseline", "bifusion", "fpn_inject")
ONE_STEP = ("schedule.epochs=1", "schedule.batch_size=2", "seeds=[0]", "tracking.mlflow=false", "execution.workers=0")
SMALL_SOURCE = "features.source=vit_mini14_reg4"  # DINOv2 ViT-L's file is 1.2 GB


class Shell:
    """Runs ditr on a data directory with ``scannet200-sv`` and a weights directory with Mask3D's file."""

    def __init__(self, stores: Path, dataset: Dataset, *, cache: Path) -> None:
        self.stores = stores
        self.root = stores / "data" / "scannet200-sv"
        shutil.copytree(dataset.root, self.root, ignore=shutil.ignore_patterns(MANIFEST))
        names = {"DITR_RUNS": "runs", "DITR_DATA": "data", "DITR_WEIGHTS": "weights"}
        own = {variable: str(stores / name) for variable, name in names.items()}
        self._environment = os.environ | own | {"DITR_CACHE": str(cache)}

    def ditr(self, *arguments: str, fails: int = 0) -> str:
        """What a command says that must end with this exit code: its output, or its errors if it has to fail."""
        done = warm.run(arguments, at=project_dir(), environment=self._environment)
        assert done.returncode == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, session_cache: Path, tiny_dataset: Dataset) -> Shell:
    stores = tmp_path_factory.mktemp("fidelity")
    (stores / "weights").mkdir()
    esam_checkpoint.write_esam(stores / "epoch_128.pth", optimizer=False)
    esam_checkpoint.write_mask3d(stores / "weights" / "mask3d_scannet200.pth")
    training = mmengine_log.Training(validations={128: (0.6243, 0.8149, 0.9102)}, nan_inst={(1, 50), (7, 600)})
    log = mmengine_log.text_log(training, began=datetime(2025, 7, 6, 20, 59, 51))
    (stores / "20250706_205951.log").write_text(log)
    shell = Shell(stores, tiny_dataset, cache=session_cache)
    for file in INFO_FILES.values():  # one frame to train on, one to evaluate: the model is large
        infos = read_infos(shell.root / file)
        write_infos(shell.root / file, replace(infos, frames=infos.frames[:1]))
    return shell


@pytest.fixture(scope="module")
def rows(shell: Shell) -> list[dict[str, Any]]:
    """What one query says after everything: an evaluation, a training step of each arm, an imported log."""
    weights = str(shell.stores / "epoch_128.pth")
    shell.ditr("eval", "specs/scannet200_sv/baseline.yaml", "--checkpoint", weights, "--frames", "1")
    overrides = [part for override in (*ONE_STEP, SMALL_SOURCE) for part in ("--set", override)]
    shell.ditr("run", *(f"specs/scannet200_sv/{arm}.yaml" for arm in ARMS), *overrides)
    shell.ditr("import", "esam-log", str(shell.stores / "20250706_205951.log"))
    found: list[dict[str, Any]] = json.loads(shell.ditr("query", "select * from results", "--format", "json"))
    return found


def test_the_prepared_folder_passes_the_check(shell: Shell) -> None:
    said = shell.ditr("data", "check", "scannet200_sv")
    assert "no problems" in said
    assert "no lattice" in said  # a line of the histogram


def test_the_evaluation_says_how_much_it_is_of(rows: list[dict[str, Any]]) -> None:
    (row,) = (row for row in rows if row["kind"] == "eval")
    assert (row["variant"], row["split"], row["n_frames"], row["excluded_frames"]) == ("baseline", "val", 1, 0)
    assert row["params_m"] == pytest.approx(41.459787, abs=1e-9)
    assert row["ap"] is not None
    assert row["infer_ms"] > 0
    assert row["peak_mem_mb"] > 0
    assert (row["esam_compat"], row["esam_differences"]) == (True, "")
    assert row["intrinsics"].startswith("default 577.87")


def test_each_arm_trains_one_step_from_the_same_weights(shell: Shell, rows: list[dict[str, Any]]) -> None:
    trained = {row["variant"]: row for row in rows if row["kind"] == "run"}
    assert trained.keys() == set(ARMS)
    losses = set()
    for row in trained.values():
        logged = (shell.stores / "runs" / row["folder"] / "metrics.jsonl").read_text().splitlines()
        (step,) = (line["metrics"] for line in map(json.loads, logged) if "train/loss" in line["metrics"])
        losses.add(step["train/loss"])
        assert step["train/grad_norm"] > 0
        report = json.loads((shell.stores / "runs" / row["folder"] / "provenance.json").read_text())["start_weights"]
        assert report["matched"] == 372
    assert len(losses) == 1, "at its first step every arm computes what the 3D-only arm computes"


def test_the_log_stands_beside_them(rows: list[dict[str, Any]]) -> None:
    (row,) = (row for row in rows if row["kind"] == "imported")
    assert (row["ap"], row["ap50"], row["ap25"]) == (0.6243, 0.8149, 0.9102)
    assert (row["epochs"], row["nan_windows"], row["esam_compat"]) == (128, 2, True)


def test_a_truncated_frame_stops_a_run_or_is_counted(
    tmp_path: Path, session_cache: Path, tiny_dataset: Dataset
) -> None:
    shell = Shell(tmp_path, tiny_dataset, cache=session_cache)
    broken = shell.root / "points" / f"{tiny_dataset.val.ids[0]}.bin"
    broken.write_bytes(broken.read_bytes()[:-10])
    small = ("dataset.name=scannet200_sv", "schedule.epochs=1", "tracking.mlflow=false", "execution.workers=0")
    run = ("run", "specs/baseline.yaml", *(part for override in small for part in ("--set", override)))
    said = shell.ditr(*run, fails=2)
    assert "1 of 4 frames cannot be used" in said
    assert broken.name in said
    assert "dataset.broken_frames: exclude" in said
    shell.ditr(*run, "--set", "dataset.broken_frames=exclude")
    (row,) = json.loads(shell.ditr("query", "select n_frames, excluded_frames from results", "--format", "json"))
    assert (row["n_frames"], row["excluded_frames"]) == (1, 1)
