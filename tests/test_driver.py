"""What the driver says of itself, and what a user reads where torch does not see the GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ditr.driver import Driver, find_driver, hidden_gpu, hidden_gpu_here
from tests.reference.machines import nvidia_smi, write_tool


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


def driver(cuda: tuple[int, int] | None, version: str = "550.54.15") -> Driver:
    return Driver(gpu="NVIDIA A100", version=version, cuda=cuda)


def test_the_driver_is_asked_for_the_gpu_its_version_and_its_cuda(tools: Path) -> None:
    nvidia_smi(tools)
    assert find_driver() == Driver(gpu="NVIDIA Example 24GB", version="580.95.05", cuda=(13, 0))
    nvidia_smi(tools, driver="610.10", cuda="CUDA UMD Version: 13.4")
    assert find_driver() == Driver(gpu="NVIDIA Example 24GB", version="610.10", cuda=(13, 4))
    nvidia_smi(tools, cuda="CUDA Version: N/A")
    found = find_driver()
    assert found is not None
    assert found.cuda is None
    write_tool(tools / "nvidia-smi", "NVIDIA-SMI has failed because it couldn't communicate with the driver", code=9)
    assert find_driver() is None
    (tools / "nvidia-smi").unlink()
    assert find_driver() is None


TOO_OLD = "the driver 550.54.15 of NVIDIA A100 is too old for"
UPDATE = "update the NVIDIA driver to 580 or newer, which CUDA 13 needs"
CU129 = "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cu129 TORCH=torch==2.13.0+cu129 make setup"
MESSAGES = {
    "CPU build": (
        (driver((13, 0), "580.95.05"), "2.13.0+cpu", None),
        "torch 2.13.0+cpu is a build for the CPU, though there is NVIDIA A100",
        "TORCH=torch==2.13.0 make setup",
    ),
    "CPU build beside an old driver": (
        (driver((12, 2)), "2.13.0+cpu", None),
        "torch 2.13.0+cpu is a build for the CPU, though there is NVIDIA A100",
        "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cu126 TORCH=torch==2.13.0+cu126 make setup",
    ),
    "CPU build beside a driver of no torch of today": (
        (driver((11, 4)), "2.13.0+cpu", None),
        "torch 2.13.0+cpu is a build for the CPU, though there is NVIDIA A100",
        UPDATE,
    ),
    "old driver": (
        (driver((12, 8)), "2.13.0+cu130", "13.0"),
        f"{TOO_OLD} torch 2.13.0+cu130: it runs CUDA 12.8 at most, and this torch is built for CUDA 13.0",
        f"{UPDATE}; or take the torch of an older CUDA: {CU129}",
    ),
    "very old driver": (
        (driver((11, 4)), "2.13.0+cu126", "12.6"),
        f"{TOO_OLD} torch 2.13.0+cu126: it runs CUDA 11.4 at most, and this torch is built for CUDA 12.6",
        "update the NVIDIA driver to 525 or newer, which CUDA 12 needs",
    ),
    "another reason": (
        (driver((12, 2)), "2.13.0+cu126", "12.6"),
        "torch 2.13.0+cu126 for CUDA 12.6 sees no GPU, though the driver shows NVIDIA A100",
        "`.venv/bin/python -c 'import torch; torch.cuda.init()'` says why",
    ),
}


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("case", MESSAGES)
def test_a_hidden_gpu_is_said_with_the_right_fix(case: str) -> None:
    (found, version, cuda), what, fix = MESSAGES[case]
    hidden = hidden_gpu(found, torch=version, torch_cuda=cuda)
    assert hidden is not None
    assert (hidden.what, hidden.fix) == (what, fix)


def test_a_gpu_that_the_user_hides_or_torch_sees_is_not_hidden(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tools)
    assert hidden_gpu(None, torch="2.13.0+cpu", torch_cuda=None) is None
    assert hidden_gpu_here() is not None
    for hides in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hides)
        assert hidden_gpu_here() is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    hidden = hidden_gpu(driver((13, 0)), torch="2.13.0+cu130", torch_cuda="13.0")
    assert hidden is not None
    assert hidden.fix.startswith("CUDA_VISIBLE_DEVICES is 7; ")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert hidden_gpu_here() is None
