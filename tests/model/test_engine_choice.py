"""Which engine a device takes, and what is said where none can be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ditr.errors import Code, DitrError
from ditr.model.sparse import choice
from ditr.model.sparse.choice import choose_engine
from tests.reference.machines import Machine, machine  # noqa: F401

TRITON = "the engine triton cannot run here: "
NEITHER = (
    "torch sees a GPU that no engine can use: there is no C compiler, and Triton compiles what starts its kernels, and"
    " MinkowskiEngine was built without CUDA"
)
NEITHER_FIX = (
    "Install gcc, or set CC to a C compiler; or build MinkowskiEngine with CUDA as `ditr doctor` says; or compute on"
    " the CPU, many times slower: execution.device=cpu in the spec, or CUDA_VISIBLE_DEVICES= before the command to hide"
    " the GPU."
)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("has", "wanted", "device", "chosen"),
    [
        ({"gpu": False}, "auto", CPU, "minkowski"),
        ({"gpu": False}, "minkowski", CPU, "minkowski"),
        ({"gpu": True}, "auto", CPU, "minkowski"),
        ({"gpu": True}, "auto", CUDA, "triton"),
        ({"gpu": True, "capability": (8, 0)}, "triton", CUDA, "triton"),
        ({"gpu": True, "compilers": ("clang",)}, "auto", CUDA, "triton"),
        ({"gpu": True, "minkowski_cuda": True}, "auto", CUDA, "triton"),
        ({"gpu": True, "minkowski_cuda": True}, "minkowski", CUDA, "minkowski"),
        ({"gpu": True, "minkowski_cuda": True, "capability": (7, 5)}, "auto", CUDA, "minkowski"),
        ({"gpu": True, "minkowski_cuda": True, "compilers": ()}, "auto", CUDA, "minkowski"),
        ({"gpu": True, "minkowski_cuda": True, "triton": False}, "auto", CUDA, "minkowski"),
    ],
)
def test_auto_is_triton_where_it_can_run(
    machine: Machine,  # noqa: F811
    has: dict[str, Any],
    wanted: Any,
    device: torch.device,
    chosen: str,
) -> None:
    machine(**has)
    assert choose_engine(wanted, device=device) == chosen


@pytest.mark.parametrize(
    ("has", "wanted", "device", "what", "fix"),
    [
        (
            {"gpu": False},
            "triton",
            CPU,
            "the engine triton cannot run here: its kernels run on GPUs alone and the device is the CPU",
            "Run it on a GPU; or set execution.engine to auto.",
        ),
        (
            {"gpu": True, "capability": (7, 5)},
            "triton",
            CUDA,
            TRITON + "NVIDIA Example has compute capability 7.5 and Triton's kernels need 8.0",
            "Use a newer GPU; or set execution.engine to auto.",
        ),
        (
            {"gpu": True, "triton": False},
            "triton",
            CUDA,
            "the engine triton cannot run here: Triton is not installed",
            "Run `make setup`, or install the triton of your torch; or set execution.engine to auto.",
        ),
        (
            {"gpu": True},
            "minkowski",
            CUDA,
            "the engine minkowski cannot run here: MinkowskiEngine was built without CUDA",
            "Build MinkowskiEngine with CUDA as `ditr doctor` says; or set execution.engine to auto.",
        ),
        (
            {"gpu": True, "compilers": ()},
            "auto",
            CUDA,
            NEITHER,
            NEITHER_FIX,
        ),
    ],
)
def test_what_cannot_be_had_is_one_message_with_what_to_do(
    machine: Machine,  # noqa: F811
    has: dict[str, Any],
    wanted: Any,
    device: torch.device,
    what: str,
    fix: str,
) -> None:
    machine(**has)
    with pytest.raises(DitrError) as raised:
        choose_engine(wanted, device=device)
    error = raised.value
    assert (error.code, error.where, error.what, error.fix) == (Code.ENVIRONMENT, "execution.engine", what, fix)


def test_triton_takes_the_compiler_that_cc_names_and_no_other(
    machine: Machine,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(gpu=True, compilers=("gcc",))
    monkeypatch.setenv("CC", "no-such-cc")
    with pytest.raises(DitrError, match="CC names 'no-such-cc', which is no program"):
        choose_engine("triton", device=CUDA)
    monkeypatch.setenv("CC", "gcc")
    assert choose_engine("triton", device=CUDA) == "triton"


def test_pythons_headers_are_needed(
    machine: Machine,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    machine(gpu=True)
    monkeypatch.setattr(choice, "_header_folder", lambda: tmp_path)
    with pytest.raises(DitrError, match=r"no Python\.h in ") as raised:
        choose_engine("triton", device=CUDA)
    assert "python3-dev" in raised.value.fix


def test_what_is_looked_for_is_what_triton_itself_uses() -> None:
    """Its own function decides; a version that compiles in another way changes this text."""
    import inspect

    from triton.runtime import build

    said = inspect.getsource(build._build)
    for used in ('os.environ.get("CC")', 'which("clang")', 'which("gcc")', 'get_paths(scheme=scheme)["include"]'):
        assert used in said
