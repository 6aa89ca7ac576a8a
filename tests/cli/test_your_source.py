"""A 2D source of the user's own, from the template and as docs/your_source.md makes it by hand."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ditr.cli.main import app
from ditr.data.dataset import Dataset
from ditr.paths import runs_dir

PAGE = (Path(__file__).parents[2] / "docs" / "your_source.md").read_text()
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
SMALL = ("dataset.name=synthrooms_tiny", "checkpoint=null")
SHORT = ("schedule.epochs=1", "schedule.batch_size=2", "execution.workers=0", "tracking.mlflow=false")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new project that is the working directory."""
    folder = tmp_path / "my_rooms"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert ditr("init").exit_code == 0
    return folder


def ditr(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_page_makes_a_source_that_passes_its_checks_and_trains(project: Path, tiny_dataset: Dataset) -> None:
    for block in BLOCK.finditer(PAGE):
        if block["language"] != "sh":
            name = block["text"].splitlines()[0].removeprefix("# ")
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(block["text"])
            continue
        for line in block["text"].splitlines():
            _, *words = shlex.split(line, comments=True)
            overrides = () if words[0] in ("init", "validate") else (*SMALL, *(SHORT if words[0] == "run" else ()))
            done = ditr(*words, *(part for override in overrides for part in ("--set", override)))
            assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception}"
    (folder,) = runs_dir().glob("edges-s0-*")
    assert (folder / "result.json").is_file()


def test_the_template_passes_the_checks_of_features(project: Path, tiny_dataset: Dataset) -> None:
    assert ditr("init", "--source", "own_encoder").exit_code == 0
    assert ditr("features", "extract", "specs/own_encoder.yaml", "--set", SMALL[0]).exit_code == 0
    done = ditr("features", "check", "specs/own_encoder.yaml", "--set", SMALL[0])
    assert done.exit_code == 0, done.output
    assert pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(project), "tests/test_own_encoder.py"]) == 0
    entry = project / "registry" / "features" / "own_encoder.yaml"
    entry.write_text(entry.read_text().replace("own_encoder:", "nowhere:"))
    assert "warning: 2D weights own_encoder is not here: no module nowhere" in ditr("validate", "own_encoder").stderr
