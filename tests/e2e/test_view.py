"""``ditr view`` as a user types it, on a run of two frames: a picture, a page, and what it says of mistakes."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ditr.data.dataset import Dataset
from ditr.paths import project_dir
from tests.e2e.shell import Shell, command, ignore_ctrl_c
from tests.ports import free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def frame(tiny_dataset: Dataset) -> str:
    return tiny_dataset.val.ids[0]


def refused(done: Shell, *arguments: str) -> str:
    asked = done.ditr("view", *arguments)
    assert asked.returncode == 2, asked.stdout + asked.stderr
    assert "Traceback" not in asked.stderr
    return asked.stderr


@pytest.mark.parametrize("arm", ["fpn_inject", "baseline"])
def test_a_picture_is_written_and_named(done: Shell, frame: str, tmp_path: Path, arm: str) -> None:
    out = tmp_path / "new" / "view.png"
    asked = done.ditr("view", arm if arm == "baseline" else done.folder(arm).name, frame, "--out", str(out))
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.endswith(f"{out}\n")
    assert "2D features" in asked.stdout
    assert np.asarray(Image.open(out)).std() > 20


def test_a_page_is_served_until_ctrl_c(done: Shell, frame: str) -> None:
    port = str(free_port())
    server = subprocess.Popen(
        command("view", "fpn_inject", frame, "--port", port),
        cwd=project_dir(),
        env=done.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=ignore_ctrl_c,
    )
    assert server.stdout is not None
    said = next(line for line in server.stdout if not line.startswith("  "))  # after what was opened
    with urllib.request.urlopen(f"http://localhost:{port}/", timeout=20) as answer:
        assert answer.status == 200
    server.send_signal(signal.SIGINT)
    out, err = server.communicate(timeout=60)
    assert said == f"http://localhost:{port}  (Ctrl-C ends it)\n"
    assert (server.returncode, out, err) == (0, "", "")


def test_a_taken_port_is_said_before_the_work(done: Shell, frame: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        asked = done.ditr("view", "fpn_inject", frame, "--port", port)
    assert asked.returncode == 2
    assert f"error[environment]: localhost:{port}: the page cannot be served: Address already in use" in asked.stderr
    assert asked.stdout == ""


def test_near_names_of_runs_and_frames_are_shown(done: Shell, frame: str, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "view.png"))
    assert "did you mean fpn_inject?" in refused(done, "fpn_injct", frame, *out)
    folder = done.folder("baseline").name
    assert f"did you mean {folder}" in refused(done, folder[:-1], frame, *out)
    assert "there are baseline, bifusion, fpn_inject" in refused(done, "zzz", frame, *out)
    assert "no run's folder" in refused(done, str(tmp_path), frame, *out)
    told = refused(done, "fpn_inject", f"{frame}1", *out)
    assert "has no frame" in told
    assert frame in told
    assert not (tmp_path / "view.png").exists()


def test_a_name_of_several_runs_lists_them(done: Shell, frame: str, tmp_path: Path) -> None:
    shell = replace(done, stores=tmp_path)
    shutil.copytree(done.runs, shell.runs)
    first = shell.folder("baseline")
    second = first.with_name("baseline-s1-0123456789")
    shutil.copytree(first, second)
    out = ("--out", str(tmp_path / "view.png"))
    told = refused(shell, "baseline", frame, *out)
    assert "2 finished runs are called 'baseline'" in told
    assert first.name in told
    assert second.name in told


def test_a_run_without_weights_is_refused_before_its_data_are_made(done: Shell, frame: str, tmp_path: Path) -> None:
    shell = replace(done, stores=tmp_path, cache=tmp_path / "cache")
    shutil.copytree(done.runs, shell.runs)
    shutil.rmtree(shell.folder("baseline") / "checkpoints")
    assert "this run has no weights" in refused(shell, "baseline", frame, "--out", str(tmp_path / "view.png"))
    assert not shell.cache.exists()


def test_where_nothing_has_run_the_message_says_what_to_run(done: Shell, frame: str, tmp_path: Path) -> None:
    told = refused(replace(done, stores=tmp_path), "baseline", frame, "--out", str(tmp_path / "view.png"))
    assert "there is no finished run yet" in told
    assert "ditr run specs/fpn_inject.yaml" in told


def test_a_picture_that_cannot_be_written_is_a_message(done: Shell, frame: str, tmp_path: Path) -> None:
    assert "cannot be written: is a directory" in refused(
        done, str(done.folder("baseline")), frame, "--out", str(tmp_path)
    )
