"""Stored 2D features through the real commands; the README's test goes through the others."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ditr.data.dataset import Dataset
from ditr.paths import project_dir
from tests.e2e import warm

pytestmark = pytest.mark.slow

TINY = ("--set", "dataset.name=synthrooms_tiny", "--set", "tracking.mlflow=false")
Ditr = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ditr(tmp_path: Path, tiny_dataset: Dataset) -> Ditr:
    """Runs a command with stores of its own, but for the data set, which is made once a session."""
    cache = tmp_path / "cache"
    (cache / "datasets").mkdir(parents=True)
    (cache / "datasets" / tiny_dataset.root.name).symlink_to(tiny_dataset.root)
    own = os.environ | {"DITR_CACHE": str(cache), "DITR_RUNS": str(tmp_path / "runs")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        done = warm.run(words, at=project_dir(), environment=own)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


def maps_of(tmp_path: Path) -> dict[Path, tuple[int, bytes]]:
    """When each map was written, and what it holds."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "cache").rglob("*.npy")}


def test_maps_are_made_once_and_a_map_of_another_frame_is_found(
    ditr: Ditr, tmp_path: Path, tiny_dataset: Dataset
) -> None:
    extract = ("features", "extract", "specs/fpn_inject.yaml", *TINY)
    assert ditr(*extract).returncode == 0
    made = maps_of(tmp_path)
    assert len(made) == len(tiny_dataset.train) + len(tiny_dataset.val)
    assert ditr(*extract).returncode == 0
    assert maps_of(tmp_path) == made, "a second extraction touches nothing"

    checked = ditr("features", "check", "specs/fpn_inject.yaml", *TINY)
    assert checked.returncode == 0, checked.stdout
    rows = json.loads(ditr("query", "select variant, stage, passed from checks", "--format", "json").stdout)
    assert len(rows) > 5
    assert all(row == {"variant": "fpn_inject", "stage": 1, "passed": True} for row in rows)

    swapped = tiny_dataset.train.ids[0]
    first, second = (next(iter((tmp_path / "cache").rglob(f"{name}.npy"))) for name in tiny_dataset.train.ids[:2])
    first.write_bytes(second.read_bytes())
    checked = ditr("features", "check", "specs/fpn_inject.yaml", *TINY)
    assert checked.returncode == 1
    assert "FAIL" in checked.stdout
    assert swapped in checked.stdout
    trained = ditr("run", "specs/fpn_inject.yaml", *TINY, "--set", "schedule.epochs=1", "--set", "execution.workers=0")
    assert trained.returncode == 2
    assert swapped in trained.stdout + trained.stderr
