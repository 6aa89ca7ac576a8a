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
APT = "apt-get install python3.12-dev"
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
    for name in ("minkowski.build", "minkowski.install", "minkowski.system_packages"):
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


def test_a_build_for_the_cpu_is_looked_for_in_pytorchs_index_and_else_the_one_with_cuda_is_taken(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever words an installer has for a build that is not there."""
    there: set[str] = set()
    asked: list[str] = []

    def run(what: str, *command: str) -> None:
        asked.append("index" if script.CPU_INDEX in command else "cpu" if f"{script.TORCH}+cpu" in command else "cuda")
        if asked[-1] not in there:
            raise script.SetupError("no solution found when resolving dependencies")
        if asked[-1] == "index":
            assert "--no-deps" in command, "its other packages are old"
            there.add("cpu")

    monkeypatch.setattr(script, "_run", run)
    for available, expected in (
        ({"cpu"}, ["cpu"]),
        ({"index"}, ["cpu", "index", "cpu"]),
        ({"cuda"}, ["cpu", "index", "cuda"]),
    ):
        there, asked[:] = available, []
        script._install_torch()
        assert asked == expected
    there = set()
    with pytest.raises(script.SetupError, match="no solution found"):
        script._install_torch()


def test_the_image_for_gpus_asks_for_the_same_torch_by_name(script: ModuleType) -> None:
    assert f"RUN TORCH={script.TORCH} python3 tools/setup.py" in (script.ROOT / "Dockerfile").read_text()


def test_the_notice_names_all_weights_that_are_in_the_repository(script: ModuleType) -> None:
    weights = [path.relative_to(script.ROOT) for path in (script.ROOT / "registry").rglob("*.safetensors")]
    notice = (script.ROOT / "NOTICE").read_text()
    assert weights
    assert [str(path) for path in weights if str(path) not in notice] == []


@pytest.mark.parametrize(
    ("platform", "says"), [("darwin", "on macOS use the Dockerfile"), ("win32", "on Windows use WSL 2")]
)
def test_another_system_is_told_in_one_sentence(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], platform: str, says: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(SystemExit) as raised:
        script.main()
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1
    monkeypatch.setattr(sys, "platform", "linux")
    for module in ("setup_script", "minkowski.install"):
        assert not hasattr(sys.modules.get(module, script), "fcntl"), "Windows could not import it"


@pytest.mark.parametrize(
    ("tools", "modules", "root", "says"),
    [
        (["apt-get"], False, True, APT),
        (["dnf"], False, True, "dnf install python3.12-devel"),
        (["dnf", "conda"], True, True, "dnf install python3.12-devel"),
        (["apt-get"], False, False, f"as root {APT}; without root, conda (conda-forge.org) has python"),
        (["apt-get", "conda"], False, False, f"conda install -c conda-forge python, or as root {APT}"),
        (["dnf"], True, False, "module load python, or as root dnf install python3.12-devel"),
        ([], False, False, "conda install -c conda-forge python"),
    ],
)  # fmt: skip
def test_what_is_missing_comes_with_the_commands_of_this_machine(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tools: list[str],
    modules: bool,
    root: bool,
    says: str,
) -> None:
    for tool in tools:
        write_tool(tmp_path / "tools" / tool, "")
    monkeypatch.setenv("PATH", str(tmp_path / "tools"))
    monkeypatch.delenv("MODULESHOME", raising=False)
    monkeypatch.delenv("LMOD_CMD", raising=False)
    if modules:
        monkeypatch.setenv("MODULESHOME", "/usr/share/lmod")
    monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
    assert script.how_to_install("headers", python="python3.12") == says


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
