"""``ditr init``, specs by name, and what a project's registry hides."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ditr.cli.main import app
from ditr.cli.spec_files import find_spec
from ditr.errors import DitrError
from ditr.paths import builtin_dir
from tests.reference.another_process import forget_code


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new project that is the working directory."""
    folder = tmp_path / "my_rooms"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    forget_code("a", "gate", "my_gate")
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


def refused(*arguments: str) -> str:
    """What the command says instead of working; a traceback is no answer."""
    error = ditr(*arguments).exception
    assert isinstance(error, DitrError), error
    return f"{error.what} | {error.fix}"


@pytest.mark.parametrize(
    "before",
    ['[ fusion ]\nx = "a:X"\n', '# mine\r\n[fusion] # parts\r\nx = "a:X"\r\n\r\n[folders]\r\nruns = "r"\r\n', ""],
)
def test_a_line_is_added_to_the_projects_file_and_nothing_else_changed(before: str, project: Path) -> None:
    (project / "a.py").write_text((builtin_dir().parent / "templates" / "arm" / "film.py").read_text() + "X = Film\n")
    (project / "ditr.toml").write_bytes(before.encode())
    assert ditr("init", "--arm", "gate").exit_code == 0
    after = (project / "ditr.toml").read_bytes().decode()
    assert tomllib.loads(after)["fusion"]["gate"] == "gate:Gate"
    assert [line for line in after.splitlines(keepends=True) if "gate" not in line] == (
        before.splitlines(keepends=True) or ["[fusion]\n"]
    )


@pytest.mark.parametrize("text", ['fusion.x = "a:X"\n', '[fusion]\ngate = "other:Gate"\n'])
def test_a_projects_file_that_no_line_can_be_added_to_stays_whole(text: str, project: Path) -> None:
    (project / "ditr.toml").write_text(text)
    before = sorted(project.rglob("*"))
    assert 'gate = "gate:Gate"' in refused("init", "--arm", "gate")
    assert ((project / "ditr.toml").read_text(), sorted(project.rglob("*"))) == (text, before)


@pytest.mark.parametrize("name", ["torch", "class", "random", "ditr"])
def test_no_template_hides_a_module_that_there_is(name: str, project: Path) -> None:
    before = sorted(project.rglob("*"))
    for option in ("--arm", "--source"):
        assert "cannot be a module's name" in refused("init", option, name)
    assert "would be written" in refused("init", "--arm", "both", "--source", "both")
    assert sorted(project.rglob("*")) == before


def test_a_project_made_from_outside_has_its_part_in_its_schema(tmp_path: Path, project: Path) -> None:
    assert ditr("init", str(tmp_path / "other"), "--arm", "my_gate").exit_code == 0
    assert '"my_gate"' in (tmp_path / "other" / "registry" / "spec.schema.json").read_text()
    (tmp_path / "file").touch()
    assert "cannot be written" in refused("init", str(tmp_path / "file"))


def test_a_name_of_a_spec_goes_before_a_folder_and_may_have_dots(project: Path) -> None:
    (project / "baseline").mkdir()
    assert find_spec("baseline") == project / "specs" / "baseline.yaml"
    (project / "specs" / "v1.2.yaml").touch()
    assert find_spec("v1.2") == project / "specs" / "v1.2.yaml"
    with pytest.raises(DitrError, match="no spec is called 'baselin'; did you mean 'baseline'"):
        find_spec("baselin")
    assert find_spec("baseline::one") == project / "specs" / "baseline.yaml::one"
    assert find_spec("absent.yaml") == Path("absent.yaml")


def test_where_no_command_can_work_is_one_message(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DITR_RUNS", "~nobody-at-all/runs")
    assert "no such user" in refused("ls")
    monkeypatch.delenv("DITR_RUNS")
    (project / "ditr.toml").write_text('[folders]\nruns = "~nobody-at-all/runs"\n')
    assert "no such user" in refused("ls")
    (project / "registry" / "datasets" / "folder.yaml").mkdir(parents=True)
    assert "'folder' is not in" in refused("validate", "baseline", "--set", "dataset.name=folder")
    gone = project / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "the working directory is not there any more" in refused("ls")
