"""Finished runs as a comparison reads them, made of a spec and a chance of being right; no training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ditr.evaluation.instance_facts import save_instances
from ditr.evaluation.match_table import FrameMatches, MatchTable
from ditr.files import write_json
from ditr.paths import project_dir
from ditr.record.folder import Record
from ditr.record.state import RecordState
from ditr.report.arms import Arms, all_arms
from ditr.report.compare import Comparison, compare
from ditr.spec.dump import to_yaml
from ditr.spec.execution import possible_engines, with_engine
from ditr.spec.identity import run_key, spec_hash, variant
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

INSTANCES = 10
SCENES = 12
CONTROLS = ("control_zero", "control_shuffled", "control_mean", "control_random_weights")
Make = Callable[..., None]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def make(runs: Path) -> Make:
    """Writes the finished runs of a committed spec, whose models find a share ``chance`` of the instances."""
    registry = Registry(project_dir() / "registry")

    def write(file: str, *sets: str, chance: float = 0.5, seeds: int = 3, first: int = 0, **facts: Any) -> None:
        loaded = load_spec(project_dir() / "specs" / file, registry=registry, overrides=sets).spec
        spec = with_engine(loaded, possible_engines(loaded.execution)[0])
        digest = spec_hash(spec, registry=registry)
        for seed in range(first, first + seeds):
            key = run_key(digest, seed)
            folder = Record(runs / f"{spec.name}-s{seed}-{key}")
            folder.path.mkdir(parents=True)
            state = RecordState(
                run_key=key,
                spec_hash=digest,
                name=spec.name,
                variant=variant(spec),
                seed=seed,
                state="finished",
                started_at=f"2026-01-01T00:{len(list(runs.iterdir())):02d}:00+00:00",
            )
            folder.spec.write_text(to_yaml(spec))
            read = {"features": FEATURES} if spec.fusion.parts else {}
            write_json(folder.provenance, PROVENANCE | read | facts)
            write_json(folder.result, RESULT)
            table(chance, seed=hash_of(file, seed)).save(folder.matches)
            save_instances(folder.instances, ROWS)
            folder.set_state(state)

    return write


DATASET = {"digest": "da7a", "intrinsics": "default", "excluded_frames": []}
FEATURES: dict[str, Any] = {
    "weights_digest": "2d",
    "entry": {"kind": "vit", "description": "a source", "mean": [0.5, 0.5, 0.5]},
}
PROVENANCE: dict[str, Any] = {
    "code": "c0de",
    "git": {"commit": "a", "dirty": False},
    "dataset": DATASET,
    "features": None,
    "device": "cpu",
    "threads": 1,
    "earlier_sessions": [],
    "start_weights": {"sha256": "e16"},
    "packages": {"torch": "2.13.0", "numpy": "2.4", "MinkowskiEngine": "0.5.4", "triton": "3.7.1"},
}
RESULT = {"split": "val", "n_frames": SCENES, "device": "cpu", "params_m": 1.5, "step_ms": 100.0}
ROWS = [
    {
        "frame_id": f"scene{scene:04d}_00_0",
        "instance": instance,
        "n_points": 200,
        "size_m": 1.0,
        "distance_m": 2.0,
        "valid_ratio": 1.0,
        "class_name": "chair",
        "frequency": "head",
        "texture_only": instance < INSTANCES // 2,
        "best_iou": 0.0,
    }
    for scene in range(SCENES)
    for instance in range(INSTANCES)
]


def hash_of(file: str, seed: int) -> int:
    return sum(file.encode()) * 100 + seed


def table(chance: float, *, seed: int) -> MatchTable:
    """The later half of each frame's instances is always found, the first half with the chance."""
    rng = np.random.default_rng(seed)
    frames = []
    for scene in range(SCENES):
        found = np.flatnonzero((rng.random(INSTANCES) < chance) | (np.arange(INSTANCES) >= INSTANCES // 2))
        points = np.full(len(found), 200)
        frames.append(
            FrameMatches(
                frame_id=f"scene{scene:04d}_00_0",
                gt_sizes=np.full(INSTANCES, 200),
                scores=rng.random(len(found)),
                sizes=points,
                void=np.zeros_like(points),
                pair_gt=found,
                pair_pred=np.arange(len(found)),
                pair_points=points,
            )
        )
    return MatchTable(frames, min_points=100)


def arms_of(runs: Path, *names: str) -> Arms:
    return all_arms(runs).called(names)


def compared(runs: Path, *names: str, allow: tuple[str, ...] = ()) -> Comparison:
    return compare(arms_of(runs, *names), metric="ap50", allow=allow, resamples=100)


def finish_anew(folder: Record) -> None:
    """Lets the record be finished with its files as they are now."""
    state = folder.state()
    assert state is not None
    folder.set_state(state)
