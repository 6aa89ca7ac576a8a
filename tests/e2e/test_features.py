"""2D features and the stage checks through the real commands, on the embedded rooms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ditr.data.dataset import Dataset
from ditr.paths import project_dir

pytestmark = pytest.mark.slow

ARMS = ("baseline", "bifusion", "fpn_inject")
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
        command = [sys.executable, "-m", "ditr.cli.main", *words]
        done = subprocess.run(command, cwd=project_dir(), env=own, capture_output=True, text=True, timeout=300)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


def maps_of(tmp_path: Path) -> dict[Path, tuple[int, bytes]]:
    """When each map was written, and what it holds."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "cache").rglob("*.npy")}


def test_maps_are_made_once_checked_and_shown(ditr: Ditr, tmp_path: Path, tiny_dataset: Dataset) -> None:
    extract = ("features", "extract", "specs/fpn_inject.yaml", *TINY)
    assert ditr(*extract).returncode == 0
    made = maps_of(tmp_path)
    assert len(made) == len(tiny_dataset.train) + len(tiny_dataset.val)
    assert ditr(*extract).returncode == 0
    assert maps_of(tmp_path) == made, "a second extraction touches nothing"

    checked = ditr("features", "check", "specs/fpn_inject.yaml", *TINY)
    assert checked.returncode == 0, checked.stdout
    picture = tmp_path / "map.png"
    frame = tiny_dataset.val.ids[0]
    assert ditr("features", "show", "specs/fpn_inject.yaml", frame, "--out", str(picture), *TINY).returncode == 0
    with Image.open(picture) as image:
        assert min(image.size) > 300
    assert "vit_mini14_reg4" in ditr("features", "ls").stdout


def test_a_map_of_another_frame_is_found_before_a_run_can_read_it(
    ditr: Ditr, tmp_path: Path, tiny_dataset: Dataset
) -> None:
    assert ditr("features", "extract", "specs/fpn_inject.yaml", *TINY).returncode == 0
    first, second = (next(iter((tmp_path / "cache").rglob(f"{name}.npy"))) for name in tiny_dataset.train.ids[:2])
    first.write_bytes(second.read_bytes())
    checked = ditr("features", "check", "specs/fpn_inject.yaml", *TINY)
    assert checked.returncode == 1
    assert "FAIL" in checked.stdout
    assert tiny_dataset.train.ids[0] in checked.stdout
    trained = ditr("run", "specs/fpn_inject.yaml", *TINY, "--set", "schedule.epochs=1", "--set", "execution.workers=0")
    assert trained.returncode != 0
    assert tiny_dataset.train.ids[0] in trained.stdout + trained.stderr


def test_every_arm_passes_every_stage_and_leaves_rows(ditr: Ditr) -> None:
    checked = ditr("check", *(f"specs/{arm}.yaml" for arm in ARMS), "--frames", "3", *TINY)
    assert checked.returncode == 0, checked.stdout
    rows = json.loads(ditr("query", "select variant, stage, passed from checks", "--format", "json").stdout)
    stages = {arm: {row["stage"] for row in rows if row["variant"] == arm} for arm in ARMS}
    assert stages["fpn_inject"] == {1, 2, 3, 4}
    assert 2 in stages["baseline"]
    assert all(row["passed"] for row in rows)


def test_a_limit_that_is_not_kept_fails_with_the_number(ditr: Ditr) -> None:
    words = ("check", "specs/fpn_inject.yaml", "--frames", "1", "--stage", "2", *TINY)
    checked = ditr(*words, "--set", "checks.max_forward_s=0.001")
    assert checked.returncode == 1
    assert "0.001" in checked.stdout
