"""What must hold of a project after harm: no half file, and in the end what an uninterrupted command leaves."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.torture.views import views_disagree

Facts = dict[str, Any]
"""By path, what of the file's content must be as it is; None where that it is there is all."""

_TIMED = re.compile(r".*_(ms|ms_mean|mb)|forward_s|at|(started|ended)_at|wall_s|pid|host|files|mtime_ns|git|dirty")
"""Names of values that are of the clock, the machine and its checkout; ``files`` of a kept check are their times."""
_COPIED = "mlartifacts/"
_MACHINE = ("provenance.json", "log.txt", "mlflow.db", "results.duckdb", "state.pt", ".lock", ".png")
_RENAMED = (
    (re.compile(r"mlartifacts/[0-9a-f]{32}/"), "mlartifacts/RUN/"),
    (re.compile(r"\.replaced/(.+)-\d{8}T\d+"), r".replaced/\1"),
)


def facts_of(project: Path) -> Facts:
    """Of every file, empty folders too."""
    found: Facts = {}
    for path in sorted(project.rglob("*")):
        name = path.relative_to(project).as_posix()
        for pattern, instead in _RENAMED:
            name = pattern.sub(instead, name)
        if path.is_dir():
            if not any(path.iterdir()):
                found[name + "/"] = None
        elif not path.match("dirty*.patch"):  # of a checkout in which somebody works
            found[name] = None if _COPIED in name else _content(path)
    return found


def differences(found: Facts, wanted: Facts) -> list[str]:
    """In words, of every file that is not as it should be; what was replaced meanwhile may lie aside."""
    extra = {_top(name, wanted) for name in found.keys() - wanted.keys() if "/.replaced/" not in name}
    lines = [f"left over: {name}" for name in extra]
    lines += [f"not there: {name}" for name in wanted.keys() - found.keys()]
    for name in sorted(found.keys() & wanted.keys()):
        if found[name] != wanted[name]:
            lines.append(f"other content: {name}{_first(found[name], wanted[name])}")
    return sorted(lines)


def half_files(project: Path) -> list[str]:
    """Files under a final name that cannot be read; what is hidden is nobody's yet."""
    lines = []
    for path in sorted(project.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(project).parts)
        reader = _READERS.get(path.suffix)
        if path.is_file() and not hidden and reader is not None:
            try:
                reader(path)
            except Exception as error:
                lines.append(f"half written: {path.relative_to(project)}: {type(error).__name__}: {error}"[:200])
    return lines


def judge(project: Path, wanted: Facts) -> list[str]:
    """All that is wrong with a project in which the command has come to its end."""
    return differences(facts_of(project), wanted) + half_files(project) + views_disagree(project / "runs")


def saved_steps(project: Path) -> dict[str, int]:
    """Updates of each training that its saved state holds."""
    import torch

    found = {}
    for path in (project / "runs").glob("*/checkpoints/state.pt"):
        content = torch.load(path, map_location="cpu", weights_only=True)
        plan, ledger = content["plan"], content["ledger"]
        steps = -(-plan["samples"] // plan["batch_size"])
        found[path.parent.parent.name] = ledger["epoch"] * steps + ledger["step"]
    return found


def _top(name: str, wanted: Facts) -> str:
    """The outermost folder of a path that is of nothing wanted."""
    parts = name.split("/")
    for depth in range(1, len(parts)):
        folder = "/".join(parts[:depth]) + "/"
        if not any(other.startswith(folder) for other in wanted):
            return folder
    return name


def _content(path: Path) -> Any:
    if path.name.endswith(_MACHINE):
        return None
    if path.name == "state.json":
        return _untimed({name: value for name, value in json.loads(path.read_bytes()).items() if name != "digest"})
    if path.suffix == ".json":
        content = _untimed(json.loads(path.read_bytes()))
        if path.name == "state.json":
            del content["digest"]  # of its times too
        return content
    if path.suffix == ".jsonl":
        return [_untimed(json.loads(line)) for line in path.read_text().splitlines()]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        if _TIMED.fullmatch(str(value.get("name"))):  # a row that is about such a value
            return value["name"]
        return {name: _untimed(one) for name, one in value.items() if not _TIMED.fullmatch(name)}
    return [_untimed(one) for one in value] if isinstance(value, list) else value


def _first(found: Any, wanted: Any) -> str:
    """Where two differ, if they are not mere digests."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
        return f": {names[0]} is {str(found.get(names[0]))[:80]}, not {str(wanted.get(names[0]))[:80]}"
    if isinstance(found, list) and isinstance(wanted, list):
        return f": {len(found)} rows, not {len(wanted)}" if len(found) != len(wanted) else ": other rows"
    return ""


def _read_lines(path: Path) -> None:
    lines = path.read_text().split("\n")
    for line in lines[:-1]:  # the last is empty, or a line that was being appended
        json.loads(line)


def _read_parquet(path: Path) -> None:
    import pyarrow.parquet

    pyarrow.parquet.read_table(path)


def _read_tensors(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
        for name in file.keys():  # noqa: SIM118
            file.get_tensor(name)


def _read_state(path: Path) -> None:
    import torch

    torch.load(path, map_location="cpu", weights_only=True)


def _read_image(path: Path) -> None:
    from PIL import Image

    Image.open(path).load()


def _read_array(path: Path) -> None:
    import numpy as np

    np.load(path, allow_pickle=False)


_READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_bytes()),
    ".jsonl": _read_lines,
    ".parquet": _read_parquet,
    ".safetensors": _read_tensors,
    ".pt": _read_state,
    ".png": _read_image,
    ".jpg": _read_image,
    ".npy": _read_array,
}
