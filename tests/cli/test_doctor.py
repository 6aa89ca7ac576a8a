"""`ditr doctor` tells what is missing, how to get it, and by its exit code whether anything can run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ditr.cli.main import app
from ditr.environment import DoctorLine, State, examine
from ditr.paths import project_dir
from ditr.spec.registry import Registry
from tests.reference.machines import Machine, machine, nvidia_smi  # noqa: F401


def find(name: str) -> DoctorLine:
    return next(finding for finding in examine(Registry()) if finding.name == name)


@pytest.fixture
def doctor() -> Callable[[], Result]:
    return lambda: CliRunner().invoke(app, ["doctor"])


def test_a_set_up_machine_is_ready(doctor: Callable[[], Result]) -> None:
    result = doctor()
    assert result.exit_code == 0, result.output
    assert result.output.endswith("ready to run\n")
    assert "MinkowskiEngine" in result.output


def test_whatever_is_not_ok_comes_with_its_fix() -> None:
    findings = examine(Registry())
    assert [finding for finding in findings if (finding.state is State.OK) == bool(finding.fix)] == []


def test_a_missing_engine_is_a_problem_and_names_the_command(
    doctor: Callable[[], Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "MinkowskiEngineBackend", None)
    result = doctor()
    assert result.exit_code == 1
    assert "with `make setup`" in result.output
    assert result.output.endswith("1 to fix before ditr can run\n")


ENGINES: dict[str, tuple[dict[str, Any], tuple[State, str, str], tuple[State, str, str]]] = {
    "a new machine": (
        {},
        (State.OK, "for the CPU; on the GPU runs are computed with Triton", ""),
        (State.OK, " on NVIDIA Example", ""),
    ),
    "with nvcc": ({"minkowski_cuda": True}, (State.OK, "with CUDA", ""), (State.OK, " on NVIDIA Example", "")),
    "an old card": (
        {"capability": (7, 5)},
        (State.PROBLEM, "no other engine can use the GPU: runs are refused", "so that `nvcc` runs, then `make setup`"),
        (State.SLOW, "has compute capability 7.5 and Triton's kernels need 8.0", "Use a newer GPU"),
    ),
    "an old card with nvcc": (
        {"capability": (7, 5), "minkowski_cuda": True},
        (State.OK, "with CUDA", ""),
        (State.SLOW, "has compute capability 7.5 and Triton's kernels need 8.0", "Use a newer GPU"),
    ),
    "no compiler": (
        {"compilers": ()},
        (State.PROBLEM, "runs are refused", "execution.device=cpu"),
        (State.SLOW, "there is no C compiler", "Install gcc, or set CC to a C compiler"),
    ),
    "no GPU": ({"gpu": False}, (State.OK, "for the CPU", ""), (State.OK, "no GPU for its kernels", "")),
}


@pytest.mark.parametrize("case", ENGINES)
def test_each_engine_is_a_line_that_says_where_it_runs(
    machine: Machine,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    has, *wanted = ENGINES[case]
    machine(**{"gpu": True, **has})
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda number: SimpleNamespace(name="Card", total_memory=0))
    for name, (state, found, fix) in zip(("MinkowskiEngine", "Triton"), wanted, strict=True):
        line = find(name)
        assert line.state is state
        assert found in line.found
        assert fix in line.fix
        assert bool(fix) == bool(line.fix)


def test_an_old_driver_is_said_by_doctor_and_by_a_run(
    machine: Machine,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(gpu=False)
    nvidia_smi(tmp_path / "tools", driver="535.1", cuda="CUDA Version: 12.2")
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("torch.__version__", "2.13.0+cu130")
    line = find("torch")
    assert line.state is State.SLOW
    assert "the driver 535.1 of NVIDIA Example 24GB is too old for torch 2.13.0+cu130" in line.found
    assert line.fix.endswith("TORCH=torch==2.13.0+cu126 make setup")
    arm = [str(project_dir() / "specs/baseline.yaml"), "--set", "dataset.name=scannet200_sv"]
    ran = CliRunner().invoke(app, ["run", *arm])  # which lacks its data
    assert ran.stderr.startswith("BEWARE: these runs are computed on the CPU, many times slower: the driver 535.1 of")
    assert f"  fix: {line.fix}\n" in ran.stderr
    for options in (["--jobs", "1"], ["--set", "execution.device=cpu"]):
        assert "BEWARE" not in CliRunner().invoke(app, ["run", *arm, *options]).stderr, "that is what was asked for"
    ran = CliRunner().invoke(app, ["run", *arm, "--set", "execution.device=cuda"])
    assert "is too old for torch 2.13.0+cu130" in str(ran.exception)


def test_a_data_set_that_is_not_here_says_where_it_goes(tmp_path: Path) -> None:
    finding = find("scannet200_sv")
    assert finding.state is State.ABSENT
    assert str(tmp_path / "data") in finding.fix


def test_a_store_that_is_a_file_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    monkeypatch.setenv("DITR_RUNS", str(taken))
    finding = find("runs")
    assert finding.state is State.PROBLEM
    assert "DITR_RUNS" in finding.fix


def test_examining_makes_no_folder(tmp_path: Path) -> None:
    examine(Registry())
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "weights").exists()


def test_another_system_is_a_problem_that_says_where_ditr_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("platform").state is State.OK
    monkeypatch.setattr("ditr.environment.unsupported", lambda: "ditr runs on Linux: use one")
    assert (find("platform").state, find("platform").fix) == (State.PROBLEM, "ditr runs on Linux: use one")
