"""What ``ditr predict`` refuses, and what it warns of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ditr.cli.main import app
from ditr.errors import DitrError
from ditr.spec.registry import Registry
from tests.reference.captures import camera, rgbd, takes

WEIGHTS = Registry().folders[-1] / "checkpoints" / "synthrooms_res16unet_mini.safetensors"


def refused(*arguments: str) -> DitrError:
    found = CliRunner().invoke(app, ["predict", *arguments])
    assert isinstance(found.exception, DitrError), found.output
    return found.exception


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_weights_need_the_spec_that_they_are_of(out: Path) -> None:
    error = refused(str(WEIGHTS), "synthrooms_tiny", "--out", str(out))
    assert "does not say which model" in error.what
    assert "--spec specs/baseline.yaml" in error.fix
    other = refused(str(WEIGHTS), "synthrooms_tiny", "--spec", "specs/scannet200_sv/baseline.yaml", "--out", str(out))
    assert other.where == str(WEIGHTS.resolve())
    assert not out.exists()


def test_a_run_that_is_not_there_and_a_page_of_no_scene_are_refused(out: Path) -> None:
    assert "there is no finished run yet" in refused("fpn_inject", "synthrooms_tiny", "--out", str(out)).what
    assert "Add --merge" in refused("fpn_inject", "synthrooms_tiny", "--live", "--out", str(out)).fix
    assert not out.exists()


def test_what_lies_in_the_folder_stays(out: Path) -> None:
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    error = refused(str(WEIGHTS), "synthrooms_tiny", "--spec", "specs/baseline.yaml", "--out", str(out))
    assert error.what == "there is something already"
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_a_mistake_in_a_frames_name_leaves_no_folder(out: Path) -> None:
    """So the same command, put right, works."""
    given = (str(WEIGHTS), "synthrooms_tiny", "scene9001_00_1", "--spec", "specs/baseline.yaml", "--out", str(out))
    assert "has no frame 'scene9001_00_1'" in refused(*given).what
    assert not out.exists()


def test_what_lies_in_the_folder_is_looked_at_before_anything_else(out: Path) -> None:
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert refused("no_such_run", "synthrooms_tiny", "--out", str(out)).what == "there is something already"


def test_frames_that_do_not_agree_are_merged_with_a_warning(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = camera(160, 120)
    shots = takes(size, count=3)
    places = [take.pose for take in shots]
    shuffled = [replace(take, pose=places[(index + 1) % 3]) for index, take in enumerate(shots)]
    spec = str(Path("specs/baseline.yaml").resolve())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ditr.toml").write_text("")
    warnings = {}
    for name, frames in (("right", shots), ("wrong", shuffled)):
        rgbd(tmp_path / "captures" / name, frames, size)
        CliRunner().invoke(app, ["data", "import", "rgbd", f"captures/{name}", name, "--workers", "1"])
        given = ["predict", str(WEIGHTS), name, "--merge", "--spec", spec, "--out", str(out / name)]
        done = CliRunner().invoke(app, given)
        assert done.exit_code == 0, done.output
        warnings[name] = [line for line in done.output.splitlines() if line.startswith("WARNING")]
        told = json.loads((out / name / "result.json").read_text())["frames_apart"]
        assert len(told) == len(warnings[name]) // 2
    assert warnings["right"] == []
    assert len(warnings["wrong"]) == 2
    assert "% is at one place only" in warnings["wrong"][0]
