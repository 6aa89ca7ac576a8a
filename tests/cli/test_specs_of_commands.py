"""Every command that takes spec files takes ``specs/*.yaml``, where bases lie too, and tells all mistakes at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ditr.cli.main import app
from ditr.spec.problems import SpecErrors

COMMANDS = (["run"], ["check"], ["features", "extract"], ["features", "check"], ["validate"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_base_is_told_and_left_out(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "specs/_base.yaml"])
    assert done.exit_code == 0, done.output
    assert "specs/_base.yaml: a base, skipped" in done.output


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_mistakes_of_all_files_are_told_before_anything_starts(command: list[str], tmp_path: Path) -> None:
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for file in files:
        file.write_text(f"name: arm\ndataset: {{name: synthrooms_{file.stem}}}\n")
    done = CliRunner().invoke(app, [*command, *map(str, files)])
    assert isinstance(done.exception, SpecErrors)
    assert [problem.path for problem in done.exception.problems] == ["dataset.name"] * 2
