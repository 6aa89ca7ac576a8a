"""Builds MinkowskiEngine 0.5.4 from its unmodified source release, by compiler flags and two small headers only.

    python3 tools/minkowski/build.py --python .venv/bin/python --out wheels/

``--python`` is the interpreter the wheel is for: torch, numpy, setuptools 80 to 83, wheel and ninja must be installed
in it. The engine gets CUDA where that torch has CUDA and the machine has a GPU and nvcc. The last line printed is the
wheel's path. Needs nothing but the standard library, and no network when ``--sdist`` names the source release.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from minkowski.system_packages import how_to_install

VERSION = "0.5.4"
HEADERS = Path(__file__).resolve().parent / "include"
REQUIRED_SYMBOLS = {"sgemm_", "dgemm_", "saxpy_", "daxpy_"}
PROBE = """
import importlib.util, json, pathlib, sys, sysconfig, torch
cuda = torch.cuda.is_available()
print(json.dumps({
    "prefix": sys.prefix,
    "python_tag": "cp%d%d" % sys.version_info[:2],
    "python_headers": sysconfig.get_paths()["include"],
    "torch": torch.__version__,
    "torch_dir": str(pathlib.Path(torch.__file__).parent),
    "torch_cuda": torch.version.cuda,
    "arch": ".".join(map(str, torch.cuda.get_device_capability())) if cuda else None,
    "missing": [m for m in ("numpy", "setuptools", "wheel") if importlib.util.find_spec(m) is None],
}))
"""


class BuildError(Exception):
    """Something the build needs is missing, or the build failed; the message ends with what to do."""


@dataclass(frozen=True)
class Target:
    """What the wheel is built for."""

    python: str
    prefix: str
    python_tag: str
    python_headers: str
    torch: str
    torch_dir: Path
    torch_cuda: str | None
    arch: str | None
    """Compute capability of the GPU, "9.0"; None builds for the CPU."""
    cuda_home: Path | None

    @property
    def key(self) -> str:
        """Names the wheels that are interchangeable: a wheel fits one torch, one Python minor version and one CUDA."""
        cuda = f"cu{self.torch_cuda}-sm{self.arch}".replace(".", "") if self.arch and self.torch_cuda else "cpu"
        return f"MinkowskiEngine-{VERSION}-torch{self.torch}-{self.python_tag}-{cuda}"


def main() -> None:
    """Command line; exit code 2 and one message when something is missing or fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter the wheel is for")
    parser.add_argument("--out", type=Path, required=True, help="folder the wheel is written to")
    parser.add_argument("--sdist", type=Path, help="the source release; without it pip fetches it")
    parser.add_argument("--arch", help="compute capability to build for, such as 8.9; default: this machine's GPU")
    parser.add_argument("--cpu", action="store_true", help="build without CUDA even where there is a GPU")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compiler processes at once")
    options = parser.parse_args()
    try:
        target = detect(options.python, arch=options.arch, cpu=options.cpu)
        print(f"building {target.key} with {options.jobs} jobs", flush=True)
        print(build(target, out=options.out, sdist=options.sdist, jobs=options.jobs))
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def detect(python: str, *, arch: str | None = None, cpu: bool = False) -> Target:
    """Reads from the interpreter and the machine what to build for; says on stderr why a GPU is not used."""
    # Not resolved: the real file behind a virtual environment's interpreter knows nothing of the environment.
    probe = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        raise BuildError(f"{python} cannot import torch:\n{probe.stderr.strip()}\n  fix: install torch there first")
    facts = json.loads(probe.stdout.splitlines()[-1])
    if missing := facts.pop("missing"):
        names = " ".join(missing)
        raise BuildError(f"{python} lacks {names}\n  fix: {python} -m pip install 'setuptools<84' {names}")
    facts["torch_dir"] = Path(facts["torch_dir"])
    facts["arch"] = None if cpu else (arch or facts["arch"])
    cuda_home = _cuda_home() if facts["arch"] else None
    if facts["arch"] and (reason := _no_cuda_reason(facts["torch_cuda"], cuda_home)):
        what = "MinkowskiEngine is built for the CPU only; on the GPU, Triton's kernels compute"
        print(f"this machine has a GPU, but {reason}: {what}", file=sys.stderr)
        facts["arch"] = cuda_home = None
    return Target(python=python, cuda_home=cuda_home, **facts)


def check_compiler(python_headers: str) -> None:
    """Raises BuildError, with the command that installs it, when the C++ compiler or Python's headers are missing."""
    if shutil.which("g++") is None:
        raise BuildError(f"no C++ compiler (g++)\n  fix: {how_to_install('compiler')}")
    if not (Path(python_headers) / "Python.h").is_file():
        named = re.search(r"python3\.\d+", python_headers)
        fix = how_to_install("headers", python=named[0] if named else "python3")
        raise BuildError(f"no Python headers (Python.h in {python_headers})\n  fix: {fix}")


def build(target: Target, *, out: Path, sdist: Path | None = None, jobs: int | None = None) -> Path:
    """Compiles and returns the wheel in ``out``; an interrupted build leaves nothing there."""
    check_compiler(target.python_headers)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="minkowski-") as scratch_name:
        scratch = Path(scratch_name)
        environment = _environment(target, scratch=scratch, jobs=jobs or 1)
        command = [
            *(target.python, "-m", "pip", "wheel", "--verbose", "--no-build-isolation", "--no-deps", "--no-cache-dir"),
            # Without PEP 517 an older pip ignores the settings; with --build-option the metadata step never sees them.
            *("--use-pep517", f"--config-settings=--global-option={'--force_cuda' if target.arch else '--cpu_only'}"),
            # Naming the BLAS keeps setup.py from asking numpy.distutils, which is gone.
            "--config-settings=--global-option=--blas=openblas",
            *("--wheel-dir", str(scratch / "wheel")),
            *((str(sdist.resolve()), "--no-index") if sdist else (f"MinkowskiEngine=={VERSION}",)),
        ]
        log = out / f"{target.key}.log"
        with log.open("w") as stream:
            done = subprocess.run(command, env=environment, stdout=stream, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
            raise BuildError(f"MinkowskiEngine did not build:\n{tail}\n  fix: read {log}")
        wheel = next((scratch / "wheel").glob("*.whl"))
        # Copied beside, then renamed: another process never sees half a wheel.
        beside = Path(shutil.copy(wheel, out / f".{wheel.name}.{os.getpid()}"))
        return beside.replace(out / wheel.name)


def _environment(target: Target, *, scratch: Path, jobs: int) -> Mapping[str, str]:
    """The compiler's search paths and flags."""
    # setup.py runs `pip uninstall MinkowskiEngine -y` whenever it is executed, even for its metadata.
    no_pip = scratch / "bin" / "pip"
    no_pip.parent.mkdir()
    no_pip.write_text("#!/bin/sh\nexit 0\n")
    no_pip.chmod(0o755)
    libraries = scratch / "lib"
    libraries.mkdir()
    headers = _use_torch_blas(target, libraries)
    environment = dict(os.environ)

    def prepend(variable: str, *values: object, separator: str = ":") -> None:
        # An empty entry would mean the working directory.
        parts = [str(part) for part in (*values, environment.get(variable)) if part]
        if parts:
            environment[variable] = separator.join(parts)

    prepend("PATH", no_pip.parent, Path(target.prefix) / "bin")
    if target.arch and target.cuda_home:
        environment["CUDA_HOME"] = str(target.cuda_home)
        environment["TORCH_CUDA_ARCH_LIST"] = target.arch
        prepend("NVCC_PREPEND_FLAGS", f"-include {HEADERS / 'cuda_prelude.h'}", separator=" ")
        headers += _cuda_headers(target)
        _link_cuda_libraries(target, libraries)
        # Unlike nvcc, g++ does not look where CUDA 13 keeps Thrust.
        prepend("CPLUS_INCLUDE_PATH", *_cccl_headers(target))
    prepend("CPATH", *headers)
    prepend("LIBRARY_PATH", libraries, target.torch_dir / "lib")
    # -L is searched before the default directories, LIBRARY_PATH after them: else a system OpenBLAS would be linked.
    prepend("LDFLAGS", f"-L{libraries}", separator=" ")
    # Debug information would double the compile time and make the wheel fifty times as large.
    environment.update(CFLAGS="-g0", CXXFLAGS="-g0", MAX_JOBS=str(jobs))
    return environment


def _use_torch_blas(target: Target, libraries: Path) -> list[Path]:
    """Lets ``-lopenblas`` mean torch's own BLAS; where torch exports none, checks that a system OpenBLAS is there."""
    library = target.torch_dir / "lib" / "libtorch_cpu.so"
    listing = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=False)
    exported = {line.split()[-1] for line in listing.stdout.splitlines() if line}
    if exported >= REQUIRED_SYMBOLS:
        (libraries / "libopenblas.so").write_text("/* GNU ld script */\nINPUT ( -ltorch_cpu )\n")
        return [HEADERS]
    found = subprocess.run(
        ["g++", "-E", "-x", "c++", "-"], input="#include <cblas.h>\n", capture_output=True, text=True, check=False
    )
    if found.returncode != 0:
        raise BuildError(f"this torch exports no BLAS and no OpenBLAS is there\n  fix: {how_to_install('blas')}")
    return []


def _cuda_home() -> Path | None:
    """The CUDA toolkit: a folder with both nvcc and its headers (an nvcc alone may be a wrapper script)."""
    nvcc = shutil.which("nvcc")
    candidates = [os.environ.get("CUDA_HOME"), "/usr/local/cuda", Path(nvcc).resolve().parents[1] if nvcc else None]
    for folder in (Path(candidate) for candidate in candidates if candidate):
        if (folder / "bin" / "nvcc").is_file() and (folder / "include" / "cuda_runtime.h").is_file():
            return folder
    return None


def cuda_release() -> str:
    """What nvcc says of the CUDA toolkit; empty without one."""
    home = _cuda_home()
    return "" if home is None else f"{home}: {_nvcc_says(home)}"


def _nvcc_says(home: Path) -> str:
    done = subprocess.run([home / "bin" / "nvcc", "--version"], capture_output=True, text=True, check=False)
    return done.stdout


def _no_cuda_reason(torch_cuda: str | None, cuda_home: Path | None) -> str | None:
    """Why no CUDA engine can be built; None when one can."""
    if torch_cuda is None:
        return "this torch has no CUDA"
    if cuda_home is None:
        return f"the CUDA toolkit is missing (install CUDA {torch_cuda} with nvcc, or set CUDA_HOME)"
    if f"release {torch_cuda.split('.')[0]}." not in _nvcc_says(cuda_home):
        return f"torch is for CUDA {torch_cuda} and {cuda_home} is another version"
    return None


def _cuda_headers(target: Target) -> list[Path]:
    """Folders of cusparse.h and cublas_v2.h when the toolkit came without them: torch's own NVIDIA packages."""
    if target.cuda_home and (target.cuda_home / "include" / "cusparse.h").is_file():
        return []
    return sorted(target.torch_dir.parent.glob("nvidia/*/include"))


def _cccl_headers(target: Target) -> list[Path]:
    """Folders of Thrust that g++ would not find by itself; empty for CUDA 12, which has it among its headers."""
    assert target.cuda_home is not None
    folders = [
        *(target.cuda_home / "include" / "cccl", *target.cuda_home.glob("targets/*/include/cccl")),
        *target.torch_dir.parent.glob("nvidia/*/include/cccl"),
    ]
    return [folder for folder in folders if (folder / "thrust" / "version.h").is_file()][:1]


def _link_cuda_libraries(target: Target, libraries: Path) -> None:
    """Gives the linker an unversioned name for each CUDA library that is only there as ``.so.N``."""
    assert target.cuda_home is not None
    for name in ("libcusparse.so", "libcudart.so"):
        if (target.cuda_home / "lib64" / name).exists():
            continue
        versioned = [
            *target.torch_dir.parent.glob(f"nvidia/*/lib/{name}.*"),
            *target.cuda_home.glob(f"lib64/{name}.*"),
        ]
        if versioned:
            (libraries / name).symlink_to(versioned[0])


if __name__ == "__main__":
    main()
