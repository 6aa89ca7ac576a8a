"""What tools/minkowski/build.py decides before it compiles: which wheel fits, and what it says when something lacks."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "minkowski" / "build.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("minkowski_build_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def target(script: ModuleType, tmp_path: Path) -> Any:
    return script.Target(
        python=sys.executable,
        prefix=sys.prefix,
        python_tag="cp311",
        python_headers=str(tmp_path),
        torch="2.13.0+cu130",
        torch_dir=tmp_path,
        torch_cuda="13.0",
        arch="9.0",
        cuda_home=tmp_path,
    )


def fake_tool(path: Path, says: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


def test_a_wheel_is_not_taken_for_another_torch_python_cuda_or_card(target: Any) -> None:
    assert target.key == "MinkowskiEngine-0.5.4-torch2.13.0+cu130-cp311-cu130-sm90"
    changes: tuple[dict[str, Any], ...] = (
        {"torch": "2.13.1+cu130"},
        {"python_tag": "cp312"},
        {"torch_cuda": "12.8"},
        {"arch": "8.9"},
        {"arch": None},
    )
    assert len({target.key, *(replace(target, **change).key for change in changes)}) == 1 + len(changes)


def test_this_environment_is_detected(script: ModuleType) -> None:
    found = script.detect(sys.executable, cpu=True)
    assert found.prefix == sys.prefix
    assert found.key.endswith("-cpu")
    assert (found.torch_dir / "lib" / "libtorch_cpu.so").is_file()


def test_a_python_without_torch_is_named(script: ModuleType, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"No module named 'torch'\" >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(script.BuildError, match="No module named 'torch'") as error:
        script.detect(str(python))
    assert "fix: install torch there first" in str(error.value)


def test_a_missing_compiler_or_header_is_named_with_its_package(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_tool(tmp_path / "bin" / "g++", "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(script.BuildError, match=r"Python\.h.*\n  fix: conda install -c conda-forge python"):
        script.check_compiler(str(tmp_path))
    (tmp_path / "bin" / "g++").unlink()
    with pytest.raises(script.BuildError, match=r"g\+\+.*\n  fix: conda install -c conda-forge gxx"):
        script.check_compiler(str(tmp_path))


def test_a_toolkit_of_another_cuda_is_refused_with_the_reason(script: ModuleType, tmp_path: Path) -> None:
    fake_tool(tmp_path / "bin" / "nvcc", "Cuda compilation tools, release 12.8, V12.8.93")
    assert script._no_cuda_reason("12.6", tmp_path) is None
    assert "13.0" in script._no_cuda_reason("13.0", tmp_path)
    assert "nvcc" in script._no_cuda_reason("13.0", None)
    assert "torch has no CUDA" in script._no_cuda_reason(None, tmp_path)


def test_a_torch_without_blas_needs_openblas(script: ModuleType, target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_dir = target.torch_dir / "bin"
    fake_tool(bin_dir / "nm", "0000 T at_something")
    fake_tool(bin_dir / "g++", "")
    monkeypatch.setenv("PATH", f"{bin_dir}:/usr/bin:/bin")
    assert script._use_torch_blas(target, target.torch_dir) == []
    (bin_dir / "g++").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(script.BuildError, match="libopenblas-dev"):
        script._use_torch_blas(target, target.torch_dir)


def test_the_cuda_build_sees_the_prelude_the_card_and_a_pip_that_does_nothing(
    script: ModuleType, target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("CPLUS_INCLUDE_PATH", "NVCC_PREPEND_FLAGS", "LDFLAGS"):
        monkeypatch.delenv(variable, raising=False)
    fake_tool(tmp_path / "bin" / "nm", "\n".join(f"0 T {name}" for name in ("sgemm_", "dgemm_", "saxpy_", "daxpy_")))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    thrust = tmp_path / "include" / "cccl" / "thrust"
    thrust.mkdir(parents=True)
    (thrust / "version.h").touch()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = script._environment(target, scratch=scratch, jobs=3)
    assert environment["CPLUS_INCLUDE_PATH"] == str(tmp_path / "include" / "cccl")
    assert environment["NVCC_PREPEND_FLAGS"] == f"-include {script.HEADERS / 'cuda_prelude.h'}"
    assert environment["TORCH_CUDA_ARCH_LIST"] == "9.0"
    assert environment["CPATH"].startswith(str(script.HEADERS))
    assert environment["LDFLAGS"] == f"-L{scratch / 'lib'}"
    assert environment["MAX_JOBS"] == "3"
    first = environment["PATH"].split(":")[0]
    assert (Path(first) / "pip").read_text() == "#!/bin/sh\nexit 0\n"
