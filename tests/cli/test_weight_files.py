"""Checkpoints of the registry are weight files by their names, for every command that takes one."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ditr.cli.main import app
from ditr.cli.weight_files import find_weights
from ditr.paths import builtin_dir

MINI = "synthrooms_res16unet_mini"


def test_a_name_of_the_registry_is_its_file_and_a_path_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_weights(MINI).samefile(builtin_dir() / "registry" / "checkpoints" / f"{MINI}.safetensors")
    assert find_weights("nothing.pth") == Path("nothing.pth")
    (tmp_path / MINI).touch()
    assert find_weights(MINI) == Path(MINI)


def test_inspect_takes_a_name() -> None:
    result = CliRunner().invoke(app, ["checkpoint", "inspect", MINI])
    assert result.exit_code == 0, result.output
    assert f"registry  this is {MINI}" in result.stdout
