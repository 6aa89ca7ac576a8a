"""What is tried on failing stores: commands that write, where they write, and the numbers that must come of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import xxhash

from ditr.paths import project_dir
from tests.reference import captures, mmengine_log

Place = Literal["runs", "cache", "data", "out"]
SMALL = (
    "dataset.name=synthrooms_tiny",
    "checkpoint=null",
    "model.voxel_size_m=0.3",
    "schedule.epochs=2",
    "schedule.batch_size=2",
    "schedule.validate_every=1",
    "execution.workers=0",
    "tracking.panels=1",
)
SETS = tuple(part for override in SMALL for part in ("--set", override))
SPEC = str(project_dir() / "specs/bifusion.yaml")


@dataclass(frozen=True)
class Stores:
    """Folders of one try; each may be a disk of its own."""

    root: Path

    def at(self, place: Place) -> Path:
        return self.root / place

    def environment(self) -> dict[str, str]:
        return {f"DITR_{place.upper()}": str(self.at(place)) for place in ("runs", "cache", "data")} | {
            "DITR_WEIGHTS": str(self.root / "weights"),
            "DITR_REGISTRY": str(self.root / "registry"),
        }


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One thing that a command does."""

    name: str
    place: Place
    """Where it writes."""
    command: Callable[[Stores], tuple[str, ...]]
    numbers: Callable[[Stores], Any]
    """What came of it; equal for equal work."""
    needs: Mapping[Place, tuple[str, ...]] = field(default_factory=dict)
    """What must be there before, of the whole stores, by their place; of the others nothing is there."""
    views_only: bool = False
    """Whether it writes nothing but views, of which none may stop it."""


def _run(stores: Stores) -> tuple[str, ...]:
    return ("run", SPEC, *SETS)


def _run_numbers(stores: Stores) -> Any:
    (folder,) = stores.at("runs").glob("bifusion-s0-*")
    return _result(folder), _digest(folder / "checkpoints/model.safetensors"), _losses(folder)


def _eval_numbers(stores: Stores) -> Any:
    (folder,) = stores.at("runs").glob("bifusion-eval-*")
    return _result(folder)


def _result(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "result.json").read_text())
    return {name: found[name] for name in ("ap", "ap50", "ap25", "n_frames", "params_m")}


def _losses(folder: Path) -> list[float]:
    rows = [json.loads(line)["metrics"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["epoch/loss"] for row in rows if "epoch/loss" in row]


def _digest(path: Path) -> str:
    return xxhash.xxh3_128_hexdigest(path.read_bytes())


def _tree(folder: Path, *, ending: str = "") -> dict[str, str]:
    """Digest by name of every file that is not hidden."""
    files = (path for path in sorted(folder.rglob(f"*{ending}")) if path.is_file())
    return {
        str(path.relative_to(folder)): _digest(path)
        for path in files
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def _data_numbers(stores: Stores) -> Any:
    (folder,) = (stores.at("cache") / "datasets").glob("synthrooms_tiny-*")
    return _tree(folder)


def _map_numbers(stores: Stores) -> Any:
    return _tree(stores.at("cache") / "features", ending=".npy")


def _predicted(stores: Stores) -> Any:
    return _tree(stores.at("out") / "predicted/instances")


def _capture(stores: Stores) -> tuple[str, ...]:
    folder = stores.root / "capture"
    if not folder.is_dir():
        of = captures.camera(160, 120)
        captures.rgbd(folder, captures.takes(of, count=2), of)
    return ("data", "import", "rgbd", str(folder), "mine")


def _imported_log(stores: Stores) -> tuple[str, ...]:
    log = stores.root / "20250706_205952.log"
    if not log.is_file():
        training = mmengine_log.Training(epochs=4, validations={4: (0.6, 0.8, 0.9)})
        log.write_text(mmengine_log.scalars(training))
    return ("import", "esam-log", str(log))


def _logged_numbers(stores: Stores) -> Any:
    (folder,) = stores.at("runs").glob("*-imported-*")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return json.loads((folder / "result.json").read_text())["ap50"], [(row["step"], row["metrics"]) for row in rows]


PHASES = {
    phase.name: phase
    for phase in (
        Phase(
            name="data",
            place="cache",
            command=lambda stores: ("data", "make", "synthrooms_tiny"),
            numbers=_data_numbers,
        ),
        Phase(
            name="extract",
            place="cache",
            command=lambda stores: ("features", "extract", SPEC, *SETS),
            numbers=_map_numbers,
            needs={"cache": ("datasets",)},
        ),
        Phase(
            name="run",
            place="runs",
            command=_run,
            numbers=_run_numbers,
            needs={"cache": ("datasets", "features", "checks"), "runs": ("mlflow.db",)},
        ),
        Phase(
            name="eval",
            place="runs",
            command=lambda stores: (
                "eval", SPEC, *SETS, "--checkpoint", str(stores.root / "weights/model.safetensors")
            ),
            numbers=_eval_numbers,
            needs={"cache": ("datasets", "features", "checks"), "runs": ("mlflow.db",)},
        ),
        Phase(
            name="predict",
            place="out",
            command=lambda stores: (
                "predict", "bifusion", "synthrooms_tiny", "--out", str(stores.at("out") / "predicted")
            ),
            numbers=_predicted,
            needs={"cache": ("datasets", "features", "checks"), "runs": ("",)},
        ),
        Phase(
            name="query --out",
            place="out",
            command=lambda stores: (
                "query", "select * from metrics, range(200)",
                "--format", "csv", "--out", str(stores.at("out") / "rows.csv"),
            ),
            numbers=lambda stores: _digest(stores.at("out") / "rows.csv"),
            needs={"runs": ("",)},
        ),
        Phase(
            name="query --out, parquet",
            place="out",
            command=lambda stores: (
                "query",
                "select name, step, value, range, hash(range + step) as h from metrics, range(4000)",
                "--format", "parquet", "--out", str(stores.at("out") / "rows.parquet"),
            ),
            numbers=lambda stores: _digest(stores.at("out") / "rows.parquet"),
            needs={"runs": ("",)},
        ),
        Phase(name="import", place="data", command=_capture, numbers=lambda stores: {
                name: digest for name, digest in _tree(stores.at("data")).items() if not name.endswith(".json")
            },),
        Phase(
            name="import esam-log",
            place="runs",
            command=_imported_log,
            numbers=_logged_numbers,
            needs={"runs": ("mlflow.db",)},
        ),
        Phase(
            name="views",
            place="runs",
            command=lambda stores: ("sync",),
            numbers=lambda stores: (stores.at("runs") / "results.duckdb").is_file(),
            needs={"runs": ("*-s0-*",)},
            views_only=True,
        ),
    )
}  # fmt: skip
