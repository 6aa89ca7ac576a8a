from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ditr.files import write_json
from ditr.paths import project_dir
from ditr.record.folder import Record
from ditr.record.recording import Identity, begin
from ditr.record.state import State
from ditr.spec.dump import to_yaml
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

MakeRun = Callable[..., Record]
SPEC = load_spec(
    project_dir() / "specs/baseline.yaml", registry=Registry(), overrides=["dataset.name=synthrooms_tiny"]
).spec


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes a run folder as the runner leaves it."""

    def make(
        name: str, *, key: str, variant: str = "baseline", state: State = "finished", ap50: float = 0.5, seed: int = 0
    ) -> Record:
        folder = Record(tmp_path / "runs" / f"{name}-s{seed}-{key}")
        day = len(list(tmp_path.glob("runs/*-s*-*"))) + 1
        who = Identity(run_key=key, spec_hash="ab" * 32, name=name, variant=variant, seed=seed, kind="run")
        recording = begin(folder, who)
        folder.set_state(replace(recording.state, started_at=f"2026-01-0{day}T00:00:00+00:00"))
        folder.spec.write_text(to_yaml(SPEC.model_copy(update={"name": name})))
        dataset = {"name": "tiny", "root": str(tmp_path), "digest": "d1" * 16}
        write_json(
            folder.provenance, {"git": {"commit": "c0ffee", "dirty": False}, "dataset": dataset, "device": "cpu"}
        )
        for step in range(3):
            folder.log(step, {"loss": 1.0 / (step + 1), "learning_rate": 1e-3})
        if state == "finished":
            write_json(folder.result, {"ap": ap50 / 2, "ap50": ap50, "ap25": 0.75, "dataset": "tiny", "scales": "8,4"})
            rows = [{"frame_id": f"scene0000_00_{i}", "n_points": 100 * i, "infer_ms": 1.5} for i in range(2)]
            folder.frames.write_text("".join(json.dumps(row) + "\n" for row in rows))
        begun = folder.state()
        assert begun is not None
        folder.set_state(replace(begun, state=state, wall_s=2.0))
        return folder

    return make
