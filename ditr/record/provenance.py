"""With which code, packages and hardware a number was made."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ditr.paths import portable_text
from ditr.record.checkout import git_state

_PACKAGE = Path(__file__).resolve().parents[1]
_SHOWS_ONLY = ("cli", "report")
"""Parts of the package that change no number of a run."""
NUMERIC_PACKAGES = ("torch", "MinkowskiEngine", "triton", "numpy", "scipy", "timm")
"""Those that compute numbers of a run."""


def collect() -> dict[str, Any]:
    """What ``provenance.json`` holds; everything in it is JSON. ``git`` is None outside a git checkout."""
    return {
        "git": git_state(),
        "code": code_digest(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": {"name": _cpu_name(), "cores": os.cpu_count()},
        "gpus": _gpu_names(),
        "packages": _packages(),
    }


def code_digest(package: Path = _PACKAGE) -> str:
    """sha256 over the names and texts of the package's modules and tables, but those that only show results.

    Equal for two commits between which nothing changed that decides a number, and known outside a git checkout too.
    """
    digest = hashlib.sha256()
    for path in sorted(path for kind in ("*.py", "*.json") for path in package.rglob(kind)):
        name = path.relative_to(package)
        if name.parts[0] not in _SHOWS_ONLY:
            text = path.read_bytes()
            digest.update(f"{name.as_posix()}\0{len(text)}\0".encode())
            digest.update(text)
    return digest.hexdigest()


def command() -> list[str]:
    """The command line of this process, with no path of this machine."""
    program, *arguments = sys.argv
    return [Path(program).name, *map(portable_text, arguments)]


def session_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the provenance of a training keeps of a session before, from what that session wrote: code, the packages
    that compute numbers, device."""
    packages = {name.lower(): (name, version) for name, version in (facts.get("packages") or {}).items()}
    numeric = dict(packages[name.lower()] for name in NUMERIC_PACKAGES if name.lower() in packages)
    return {key: facts.get(key) for key in ("git", "code", "device", "threads", "ranks")} | {
        "packages": numeric or None
    }


def sessions(facts: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """``session_facts`` of every session of the training whose provenance this is; the last is the one that wrote it.

    Versions that noted only the git state of an earlier session: where that is the last session's, with the same patch,
    so are code and packages; else both are None.
    """
    last = session_facts(facts)
    unknown = {"code": None, "packages": None}
    return (
        *(
            (last if session["git"] and session["git"] == last["git"] else unknown) | session
            for session in facts.get("earlier_sessions", ())
        ),
        last,
    )


def code_changed(facts: Mapping[str, Any]) -> bool:
    """Whether sessions of one training ran different code, or code that nobody noted."""
    return len({session["code"] for session in sessions(facts)}) > 1


def dirty(facts: Mapping[str, Any]) -> bool | None:
    """Whether a session of the training ran in a checkout with uncommitted changes; None if one was in no checkout."""
    states = [session["git"] for session in sessions(facts)]
    if any(state and state["dirty"] for state in states):
        return True
    return None if None in states else False


def _packages() -> dict[str, str]:
    """Version of every installed distribution; a local suffix such as +cpu is part of it."""
    versions = {found.metadata["Name"]: found.version for found in metadata.distributions()}
    return dict(sorted((name, version) for name, version in versions.items() if name))


def _cpu_name() -> str:
    """The model as Linux names it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    """Name and memory of every NVIDIA GPU that the driver shows; empty without a driver."""
    import pynvml  # type: ignore[import-untyped]

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [_gpu_name(pynvml.nvmlDeviceGetName(one), pynvml.nvmlDeviceGetMemoryInfo(one).total) for one in handles]
    finally:
        pynvml.nvmlShutdown()


def _gpu_name(name: str | bytes, memory_bytes: int) -> str:
    text = name.decode() if isinstance(name, bytes) else name
    return f"{text}, {memory_bytes / 2**30:.0f} GiB"
