"""What ``ditr predict`` refuses, before it opens any data."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ditr.cli.main import app
from ditr.errors import DitrError
from ditr.spec.registry import Registry

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
