"""``ditr predict`` as a user types it, on a run of two frames: files, a merged scene, and what it says of mistakes."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ditr.data.dataset import Dataset
from ditr.paths import project_dir
from tests.e2e.shell import Shell, command, ignore_ctrl_c
from tests.ports import free_port

pytestmark = pytest.mark.slow
TINY = "synthrooms_tiny"
WEIGHTS = "registry/checkpoints/synthrooms_res16unet_mini.safetensors"


def test_a_run_predicts_merges_and_draws_as_view_does(done: Shell, tiny_dataset: Dataset, tmp_path: Path) -> None:
    out, picture = tmp_path / "out", tmp_path / "view.png"
    asked = done.ditr("predict", "fpn_inject", TINY, "--merge", "--out", str(out))
    assert asked.returncode == 0, asked.stderr
    lines = asked.stdout.splitlines()
    assert lines[-1] == str(out)
    assert any(line.startswith("2 frames, ") and " a second, the model alone " in line for line in lines)
    assert any(line.startswith("scene9001_00       2") for line in lines)
    result = json.loads((out / "result.json").read_text())
    assert result["scenes"]["scene9001_00"]["scores"]["ap25"] >= 0
    assert result["features"]["source"] == "vit_mini14_reg4"
    assert (out / "scenes" / "scene9001_00.ply").stat().st_size > 19 * result["scenes"]["scene9001_00"]["voxels"]
    frame = tiny_dataset.val.ids[1]
    assert done.ditr("view", "fpn_inject", frame, "--out", str(picture)).returncode == 0
    drawn, seen = (np.asarray(Image.open(path)) for path in (out / "panels" / f"{frame}.png", picture))
    np.testing.assert_array_equal(drawn, seen)


def test_weights_with_their_spec_predict_and_the_page_stays_until_ctrl_c(done: Shell, tmp_path: Path) -> None:
    port, out = str(free_port()), tmp_path / "out"
    live = ("--merge", "--live", "--port", port)
    server = subprocess.Popen(
        command("predict", WEIGHTS, TINY, "--spec", "specs/baseline.yaml", *live, "--out", str(out)),
        cwd=project_dir(),
        env=done.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=ignore_ctrl_c,
    )
    assert server.stdout is not None
    first = server.stdout.readline()
    assert first == f"http://localhost:{port}  (Ctrl-C ends it)\n"
    assert any(line == f"{out}\n" for line in server.stdout), "the rest is written meanwhile"
    with urllib.request.urlopen(f"http://localhost:{port}/", timeout=20) as answer:
        assert answer.status == 200
    server.send_signal(signal.SIGINT)
    _, err = server.communicate(timeout=60)
    assert (server.returncode, err) == (0, "")
    assert (out / "result.json").is_file()
