"""What tools/setup.py notices since it last ran, and what it installs for the machine; nothing is installed here."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.reference.machines import nvidia_smi, write_tool

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "setup.py"
Commands = list[tuple[str, ...]]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script with a virtual environment of its own, on a machine without a GPU."""
    monkeypatch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path])
    spec = importlib.util.spec_from_file_location("setup_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    venv = tmp_path / "venv"
    for name, path in (("VENV", venv), ("PYTHON", venv / "bin/python"), ("STAMP", venv / "stamp")):
        monkeypatch.setattr(module, name, path)
    (venv / "bin").mkdir(parents=True)
    (tmp_path / "tools").mkdir()
    for variable in ("TORCH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:/bin:/usr/bin")
    monkeypatch.setattr(module.build, "_cuda_home", lambda: None)
    yield module
    for name in ("minkowski.build", "minkowski.install"):
        sys.modules.pop(name, None)


@pytest.fixture
def commands(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Those that it would run."""
    found: Commands = []
    monkeypatch.setattr(script, "_run", lambda what, *command: found.append(command))
    return found


def finish(script: ModuleType) -> None:
    """As at the end of a set-up."""
    write_tool(script.PYTHON, "")
    script.STAMP.write_text(json.dumps({"inputs": script._fingerprint()} | script._machine()))


def test_a_driver_and_a_toolkit_that_have_come_since_are_noticed(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not script._is_current()
    finish(script)
    assert script._is_current()
    nvidia_smi(tmp_path / "tools")
    assert not script._is_current()
    finish(script)
    assert script._is_current()
    nvidia_smi(tmp_path / "tools", driver="590.1", cuda="CUDA Version: 13.1")
    assert not script._is_current(), "another driver may show what the old one hid"
    finish(script)
    home = tmp_path / "cuda"
    (home / "bin").mkdir(parents=True)
    monkeypatch.setattr(script.build, "_cuda_home", lambda: home)
    for release in ("13.0", "13.1"):
        write_tool(home / "bin/nvcc", f"Cuda compilation tools, release {release}")
        assert not script._is_current()
        finish(script)
        assert script._is_current()


def test_a_machine_that_shares_the_checkout_and_has_no_gpu_changes_nothing(script: ModuleType, tmp_path: Path) -> None:
    nvidia_smi(tmp_path / "tools")
    finish(script)
    (tmp_path / "tools/nvidia-smi").unlink()
    assert script._is_current()


def test_a_stamp_of_an_earlier_version_is_set_up_again(script: ModuleType) -> None:
    finish(script)
    for text in ("0123abcd", "[]", '{"inputs": "other"}'):
        script.STAMP.write_text(text)
        assert not script._is_current()


def test_a_gpu_gets_the_torch_with_cuda_in_place_of_one_for_the_cpu(
    script: ModuleType, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path / "tools")
    monkeypatch.setattr(script, "_succeeds", lambda code: True)
    script._install_torch()
    (removed, installed) = commands
    assert removed[-3:] == ("uninstall", "--yes", "torch")
    assert script.TORCH in installed
    commands.clear()
    monkeypatch.setattr(script, "_succeeds", lambda code: False)
    script._install_torch()
    assert [command[3] for command in commands] == ["install"]


def test_a_machine_without_a_gpu_gets_the_torch_for_the_cpu(script: ModuleType, commands: Commands) -> None:
    script._install_torch()
    assert [f"{script.TORCH}+cpu" in command for command in commands] == [True]


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (
            '["2.13.0+cu130", "13.0", false]',
            "the driver 550.1 of NVIDIA Example 24GB is too old for torch 2.13.0+cu130",
        ),
        ('["2.13.0+cpu", null, false]', "torch 2.13.0+cpu is a build for the CPU, though there is NVIDIA Example 24GB"),
        ('["2.13.0+cu126", "12.6", true]', ""),
    ],
)
def test_a_gpu_that_torch_does_not_see_is_said_loudly(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], facts: str, says: str
) -> None:
    nvidia_smi(tmp_path / "tools", driver="550.1", cuda="CUDA Version: 12.4")
    write_tool(script.PYTHON, facts)
    script._warn_of_hidden_gpu()
    said = capsys.readouterr().err
    assert says in said
    assert ("BEWARE" in said) == ("TORCH=torch==2.13.0+cu126 make setup" in said) == bool(says)
