"""What scripts of users rely on: the commands, their options and the exit codes change on purpose only."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ditr
from ditr.cli import main as entry
from ditr.errors import Code, DitrError, ExitCode
from tests.cli.surface import surface_text

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RENEW = "the command line changed; if that is meant: python -m tests.cli.surface > tests/cli/surface.txt"


def test_the_command_line_is_the_committed_one() -> None:
    assert surface_text() == (HERE / "surface.txt").read_text(), RENEW


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (DitrError("wrong", code=Code.RUN), ExitCode.MISTAKE),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (None, ExitCode.DONE),
    ],
)
def test_how_a_command_ends_is_its_exit_code(
    raised: BaseException | None, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def schema() -> str:
        if raised is not None:
            raise raised
        return ""

    monkeypatch.setattr("ditr.cli.spec.schema_text", schema)
    assert exit_code(monkeypatch, "schema") == code


@pytest.mark.parametrize("arguments", [["nothing"], ["run"], ["run", "--nothing"], ["view", "a", "b", "--port", "0"]])
def test_a_wrong_command_line_is_the_user_s_to_change(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code(monkeypatch, *arguments) == ExitCode.MISTAKE


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ditr", *arguments])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    return int(ended.value.code or 0)


def test_commands_end_with_named_codes_alone() -> None:
    """A number would be a code that the surface does not list."""
    calls = [
        (file.name, node)
        for file in (ROOT / "ditr" / "cli").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.Exit", "sys.exit") and node.args
    ]
    numbers = [(name, ast.unparse(node)) for name, node in calls if isinstance(node.args[0], ast.Constant)]
    assert calls
    assert numbers == []


def test_the_version_is_that_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert ditr.__version__ == version
    said = subprocess.run([sys.executable, "-m", "ditr", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert (said.returncode, said.stdout) == (0, f"ditr {version}\n"), said.stderr


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    assert not hasattr(ditr, "nothing")
