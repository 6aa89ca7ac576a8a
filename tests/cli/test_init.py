"""``ditr init``, specs by name, and what a project's registry hides."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ditr.cli.main import app
from ditr.cli.spec_files import find_spec
from ditr.errors import DitrError
from ditr.paths import builtin_dir


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new project that is the working directory."""
    folder = tmp_path / "my_rooms"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert ditr("init").exit_code == 0
    return folder


def ditr(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_new_project_has_the_arms_as_the_built_in_specs_state_them(project: Path) -> None:
    for arm in ("baseline", "bifusion", "fpn_inject"):
        said = ditr("diff", arm, f"ditr:{arm}").stdout
        assert said.startswith("Both state the same experiment"), said
    assert "# my_rooms" in (project / "README.md").read_text()
    assert ".gitignore" in [file.name for file in project.iterdir()]


def test_a_project_is_not_laid_over_what_is_there(project: Path, tmp_path: Path) -> None:
    result = ditr("init")
    assert isinstance(result.exception, DitrError)
    assert "there is a project already" in result.exception.what
    (tmp_path / "other" / "specs").mkdir(parents=True)
    (tmp_path / "other" / "specs" / "baseline.yaml").write_text("mine")
    result = ditr("init", str(tmp_path / "other"))
    assert "specs/baseline.yaml" in str(result.exception)
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["specs"], "all or nothing"


def test_a_spec_is_found_by_its_name_from_any_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project / "registry")
    assert find_spec("baseline") == project / "specs" / "baseline.yaml"
    assert find_spec("study/bifusion") == builtin_dir() / "specs" / "study" / "bifusion.yaml"
    assert find_spec("ditr:baseline") == builtin_dir() / "specs" / "baseline.yaml"
    assert find_spec("../specs/baseline.yaml") == Path("../specs/baseline.yaml")
    assert ditr("validate", "baseline").exit_code == 0
    (project / "registry" / "baseline").mkdir()
    assert find_spec("baseline") == project / "specs" / "baseline.yaml", "a folder of that name is no spec"


def test_a_value_without_set_is_answered_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ditr", "run", "baseline", "schedule.epochs=2", "--jobs", "2"])
    with pytest.raises(DitrError) as raised:
        find_spec("schedule.epochs=2")
    assert raised.value.fix == "ditr run baseline --set schedule.epochs=2 --jobs 2"


def test_an_entry_over_a_built_in_one_is_told(project: Path) -> None:
    own = project / "registry" / "datasets" / "synthrooms.yaml"
    own.parent.mkdir()
    own.write_text((builtin_dir() / "registry" / "datasets" / "synthrooms.yaml").read_text())
    assert (
        "synthrooms: registry/datasets/synthrooms.yaml, in place of the built-in" in ditr("validate", "baseline").stderr
    )
    assert "stands in place of" in ditr("doctor").stdout


def test_what_a_spec_names_and_is_not_here_is_a_warning(project: Path) -> None:
    result = ditr("validate", "ditr:scannet200_sv/fpn_inject", "ditr:scannet200_sv/bifusion")
    assert result.exit_code == 0
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning")]
    assert [line.split(" is not here")[0] for line in warnings] == [
        "warning: data set scannet200_sv",
        "warning: 2D weights dinov2_vitl14_reg4",
        "warning: checkpoint mask3d_scannet200",
    ]
    assert not ditr("validate", "baseline").stderr
