"""``ditr init --arm``, and what becomes of its part: tested, trained, compared, looked at, changed, taken away."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import ditr
from ditr.checks.stages import run_stage
from ditr.cli.main import app
from ditr.errors import DitrError
from ditr.progress import silent
from ditr.spec.fusion import FusionSpec
from ditr.spec.identity import spec_hash
from ditr.spec.registry import Registry
from tests.reference.another_process import forget_code
from tests.reference.fused_subject import fused_subject

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "your_fusion.md").read_text()
SHORT = ("--set", "dataset.name=synthrooms_tiny", "--set", "schedule.epochs=1", "--set", "tracking.mlflow=false")


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def done(*arguments: str) -> str:
    result = command(*arguments)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.output


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an arm of its own, which is the working directory."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forget_code("film")
    monkeypatch.chdir(tmp_path)
    done("init", "study")
    monkeypatch.chdir(tmp_path / "study")
    done("init", "--arm", "film")
    return tmp_path / "study"


@pytest.mark.slow
def test_an_arm_from_the_template_to_the_comparison(study: Path) -> None:
    assert pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(study), "tests"]) == 0
    assert "variant custom (film)" in done("validate", "film")
    assert "custom (film)" in done("run", "film", *SHORT)
    assert "custom (film)" in done("ls")
    assert "film" in done("compare", "film")

    run = ditr.load_run("film")
    assert run.provenance["fusion_code"]["film"]["reference"] == "film:Film"
    assert (run.record.plugins / "film.py").read_bytes() == (study / "film.py").read_bytes(), "it is made again with it"
    assert {name.partition(".")[0] for name in run.model().state_dict()} == {"backbone", "pool", "decoder", "film"}
    file, before = study / "film.py", hash_of_film()
    file.write_text(file.read_text().replace("(1 + scale)", "(1 - scale)"))
    assert hash_of_film() == before, "what this process has imported is not what lies there now"
    forget_code("film")
    with pytest.warns(UserWarning, match=r"the code of the fusion part film \(film:Film\) is not that of film-s0-"):
        ditr.load_run("film").model()
    assert hash_of_film() != before, "other code is another run"

    (study / "ditr.toml").write_text("")
    with pytest.raises(DitrError, match="its fusion part film cannot be found here") as gone:
        ditr.load_run("film")
    assert "[fusion]" in gone.value.fix
    assert "its fusion part film cannot be found here" in str(command("compare", "film").exception)


@pytest.mark.parametrize("name", ["stem", "decoder", "parts"])
def test_an_arm_that_no_part_can_be_called_is_refused_before_anything_is_written(name: str, study: Path) -> None:
    before = sorted(study.rglob("*"))
    assert f"'{name}': no fusion part can be called so" in str(command("init", "--arm", name).exception)
    assert sorted(study.rglob("*")) == before


def hash_of_film() -> str:
    return spec_hash(ditr.load_spec("specs/film.yaml"), registry=Registry())


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_shows_what_the_template_writes(study: Path) -> None:
    first, second = snippets("python")
    written = (study / "film.py").read_text()
    for line in first.splitlines():
        assert line.replace('"', "") in written.replace('"', ""), line
    (yaml,) = snippets("yaml")
    assert yaml in (study / "specs" / "film.yaml").read_text()
    assert "Early" in second
    (shell,) = snippets("sh")
    commands = {line.split()[1] for line in shell.splitlines() if line.startswith("ditr")}
    assert commands == {"init", "validate", "check", "run", "compare"}, "as the tests here run them"


@pytest.mark.parametrize("number", [0, 1])
def test_every_part_of_the_page_is_sound(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    space: dict[str, Callable[[], object]] = {}
    exec(compile(snippets("python")[number], "your_fusion.md", "exec", dont_inherit=True), space)
    fusion = FusionSpec(own=space["Film" if number == 0 else "Early"]())  # type: ignore[call-arg]
    subject = fused_subject(fusion)
    found = [check for stage in (3, 4) for check in run_stage(stage, subject, progress=silent)]
    assert [(check.name, check.value) for check in found if not check.passed] == []
    assert {"part_own_acts", "identity_at_start"} <= {check.name for check in found}
