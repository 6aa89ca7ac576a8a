"""A real run that two ranks of torchrun begin on the CPU, of which one is killed, and that one process finishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ditr.data.dataset import Dataset
from ditr.paths import project_dir

RUN = ["-m", "ditr.cli.main", "run", "specs/bifusion.yaml"]
SETS = ("dataset.name=synthrooms_tiny", "tracking.mlflow=false", "schedule.epochs=4", "schedule.validate_every=4")
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def begin(runs: Path, *how: str) -> subprocess.Popen[str]:
    sets = [word for one in (*SETS, "execution.workers=0", "execution.device=cpu") for word in ("--set", one)]
    return subprocess.Popen(
        [sys.executable, *how, *RUN, *sets],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=project_dir(),
        env=os.environ | {"DITR_RUNS": str(runs), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
    )


def logged(runs: Path) -> dict[tuple[int, str], float]:
    found = {}
    for file in runs.glob("*/metrics.jsonl"):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            found |= {(row["step"], name): value for name, value in row["metrics"].items()}
    return {key: value for key, value in found.items() if not key[1].endswith(("_ms", "_mb"))}


def text_of(runs: Path, name: str) -> str:
    (file,) = runs.glob(f"*/{name}")
    return file.read_text()


@pytest.mark.long
def test_a_killed_rank_ends_a_run_that_one_process_finishes(tmp_path: Path, tiny_dataset: Dataset) -> None:
    whole = begin(tmp_path / "whole")
    assert whole.communicate(timeout=300)[0]
    assert whole.returncode == 0
    parted = begin(tmp_path / "parted", *TWO)
    deadline = time.monotonic() + 120
    while (1, "epoch/loss") not in logged(tmp_path / "parted"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ranks = {int(one.environ()["RANK"]): one for one in psutil.Process(parted.pid).children()}
    ranks[1].send_signal(signal.SIGKILL)
    said = parted.communicate(timeout=60)[0]
    assert parted.returncode == 1
    assert "another rank of this run has ended" in said
    assert not ranks[0].is_running()
    assert json.loads(text_of(tmp_path / "parted", "state.json"))["state"] == "failed"
    last = begin(tmp_path / "parted")
    assert last.communicate(timeout=300)[0]
    assert last.returncode == 0
    facts = json.loads(text_of(tmp_path / "parted", "provenance.json"))
    assert (facts["ranks"], [session["ranks"] for session in facts["earlier_sessions"]]) == (1, [2])
    found, wanted = logged(tmp_path / "parted"), logged(tmp_path / "whole")
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        if key[1].startswith("train/"):
            assert found[key] == pytest.approx(value, rel=1e-5, abs=1e-7), key
    for name in ("ap", "ap50", "ap25"):
        assert json.loads(text_of(tmp_path / "parted", "result.json"))[name] == pytest.approx(
            json.loads(text_of(tmp_path / "whole", "result.json"))[name], abs=1e-5
        )
