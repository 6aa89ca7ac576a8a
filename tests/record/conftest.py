from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ditr.record.folder import RunFolder, RunState, State, write_json

MakeRun = Callable[..., RunFolder]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes a run folder as the runner leaves it."""

    def make(
        name: str, *, key: str, variant: str = "baseline", state: State = "finished", ap50: float = 0.5
    ) -> RunFolder:
        folder = RunFolder(tmp_path / "runs" / f"{name}-s0-{key}")
        begun = folder.begin(
            RunState(
                run_key=key,
                spec_hash="ab" * 32,
                name=name,
                variant=variant,
                seed=0,
                state="running",
                started_at=f"2026-01-0{len(list(tmp_path.glob('runs/*-s0-*'))) + 1}T00:00:00+00:00",
            )
        )
        folder.spec.write_text(f"name: {name}\n")
        write_json(folder.provenance, {"git": {"commit": "c0ffee"}})
        for step in range(3):
            folder.log(step, {"loss": 1.0 / (step + 1), "learning_rate": 1e-3})
        if state == "finished":
            write_json(folder.result, {"ap": ap50 / 2, "ap50": ap50, "ap25": 0.75, "dataset": "tiny", "scales": "8,4"})
            rows = [{"frame_id": f"scene0000_00_{i}", "n_points": 100 * i, "infer_ms": 1.5} for i in range(2)]
            folder.frames.write_text("".join(json.dumps(row) + "\n" for row in rows))
        folder.set_state(replace(begun, state=state, wall_s=2.0))
        return folder

    return make
