"""`ditr doctor` tells what is missing, how to get it, and by its exit code whether anything can run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from ditr import environment
from ditr.cli.main import app
from ditr.environment import DoctorLine, State, examine
from ditr.spec.registry import Registry


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
    monkeypatch.setitem(sys.modules, "ditr.model.sparse.minkowski", None)
    result = doctor()
    assert result.exit_code == 1
    assert "run `make setup`" in result.output
    assert result.output.endswith("1 to fix before ditr can run\n")


def test_an_engine_without_cuda_beside_a_gpu_is_slow_not_ready_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "gpu_name", lambda: "NVIDIA Example")
    monkeypatch.setattr("ditr.model.sparse.minkowski.engine_has_cuda", lambda: False)
    finding = find("MinkowskiEngine")
    assert finding.state is State.SLOW
    assert "nvcc" in finding.fix
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda number: SimpleNamespace(name="Card", total_memory=0))
    finding = find("MinkowskiEngine")
    assert finding.state is State.PROBLEM, "execution.device auto is refused"
    assert "nvcc" in finding.fix
    assert "execution.device=cpu" in finding.fix


def test_the_driver_is_asked_for_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA Example 24GB (UUID: GPU-1234)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.gpu_name() == "NVIDIA Example 24GB"
    tool.write_text("#!/bin/sh\necho 'could not talk to the driver'\nexit 9\n")
    assert environment.gpu_name() == ""


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


def test_a_missing_registry_is_a_problem_not_a_traceback(
    doctor: Callable[[], Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITR_REGISTRY", str(tmp_path / "nowhere"))
    result = doctor()
    assert result.exit_code == 1
    assert "set DITR_REGISTRY" in result.output


def test_examining_makes_no_folder(tmp_path: Path) -> None:
    examine(Registry())
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "weights").exists()
