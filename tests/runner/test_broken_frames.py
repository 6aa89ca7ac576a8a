"""A run on a folder of the user's with a broken frame."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ditr.cli.main import app
from ditr.data.dataset import Dataset
from ditr.data.scannet_sv import POINT_COUNT
from ditr.errors import DitrError
from ditr.paths import project_dir, runs_dir
from ditr.progress import silent
from ditr.record.views.results import Results
from ditr.record.views.teller import Teller
from ditr.runner.host import Host
from ditr.runner.plan import plan
from ditr.runner.requirements import require_inputs
from ditr.runner.run import run_all
from ditr.runner.stop import StopSignal
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

BROKEN = "scene9001_00_200"
REGISTRY = Registry()


@pytest.fixture
def folder(tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The embedded set as if it were the user's scannet200-sv, one evaluated frame without points."""
    monkeypatch.setenv("DITR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DITR_DATA", str(tmp_path))
    root = tmp_path / "scannet200-sv"
    shutil.copytree(tiny_dataset.root, root)
    (root / "manifest.json").unlink()
    (root / "points" / f"{BROKEN}.bin").unlink()
    return root


def load(*overrides: str):
    small = ["dataset.name=scannet200_sv", "checkpoint=null", "schedule.epochs=1", "execution.workers=0"]
    path = project_dir() / "specs/baseline.yaml"
    return load_spec(path, registry=REGISTRY, overrides=[*small, "tracking.mlflow=false", *overrides])


def test_a_data_set_with_broken_frames_is_refused_before_any_run_starts(folder: Path) -> None:
    with pytest.raises(DitrError, match="1 of 4 frames cannot be used") as caught:
        require_inputs([load().spec], registry=REGISTRY)
    assert BROKEN in str(caught.value)
    require_inputs([load("dataset.broken_frames=exclude").spec], registry=REGISTRY)


def test_excluded_frames_are_said_counted_and_named(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    host = Host(
        registry=REGISTRY,
        progress=silent,
        say=said.append,
        stop=StopSignal(),
        draw=lambda *arguments: None,
        teller=Teller((), say=print),
    )
    results = Results(tmp_path / "runs")
    planned = plan([load("dataset.broken_frames=exclude")], registry=REGISTRY, runs=tmp_path / "runs", force=False)
    (outcome,) = run_all(planned, host=host)
    assert outcome.error is None
    (row,) = results.query("select excluded_frames, intrinsics, n_frames from results").rows
    assert row == (1, "default 577.871 577.871 319.5 239.5", 1)
    provenance = json.loads(outcome.planned.folder.provenance.read_text())
    assert provenance["dataset"]["excluded_frames"] == [BROKEN]
    assert any("left out: 1 broken frame," in line for line in said)


@pytest.mark.parametrize("command", ["run", "check", "data check"])
def test_data_without_an_instance_is_refused_before_any_work(folder: Path, command: str) -> None:
    """As a map of classes leaves it that knows none of the ids: a training would end without a word, its AP "-"."""
    for path in (folder / "semantic_mask").iterdir():
        np.zeros(POINT_COUNT, dtype=np.int64).tofile(path)
    arm = str(project_dir() / "specs/baseline.yaml")
    sets = ["--set", "dataset.name=scannet200_sv", "--set", "dataset.broken_frames=exclude"]
    arguments = ["data", "check", "scannet200_sv"] if command == "data check" else [command, arm, *sets]
    done = CliRunner().invoke(app, arguments)
    said = done.output + str(done.exception)
    assert done.exit_code != 0
    assert "no instance to score" in said, "the first of the two stops a run"
    assert command != "data check" or "no instance to train on" in said
    assert not list(runs_dir().rglob("result.json"))
