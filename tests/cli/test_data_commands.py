from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ditr.cli.main import app
from ditr.data.info_pickle import read_infos, write_infos
from ditr.data.scannet_sv import INFO_FILES
from ditr.errors import DitrError


def ditr(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_make_check_and_show_a_set_of_ones_own(tmp_path):
    out = tmp_path / "rooms"
    made = ditr("data", "make", "synthrooms", "--scenes", 2, "--frames", 1, "--seed", 5, "--out", out)
    assert made.exit_code == 0, made.output
    assert "train 1 frames, val 1 frames" in made.output
    checked = ditr("data", "check", out)
    assert checked.exit_code == 0, checked.output
    assert "no problems" in checked.output
    assert "superpoint purity" in checked.output
    picture = tmp_path / "panel.png"
    shown = ditr("data", "show", out, "scene0000_00_0", "--out", picture)
    assert shown.exit_code == 0, shown.output
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(maxcolors=2**24)) > 1000
    again = ditr("data", "make", "synthrooms", "--out", out)
    assert isinstance(again.exception, DitrError)
    assert "already exists" in str(again.exception)


def test_check_exits_1_and_says_where_and_what_it_means_for_a_run(tiny_dataset, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(tiny_dataset.root, root)
    (root / "manifest.json").unlink()
    (root / "points/scene9001_00_200.bin").unlink()
    (root / "pose_centered/scene9001_00/0.npy").unlink()
    result = ditr("data", "check", root)
    assert result.exit_code == 1
    assert "points/scene9001_00_200.bin: no such file" in result.output
    rows = [" ".join(line.split()) for line in result.output.splitlines()]
    assert "missing points 1 breaks the frame" in rows
    assert "missing pose_centered 1 runs do without" in rows
    assert "1 of 4 frames cannot be used: a run refuses, or leaves them out with" in rows


def test_check_prints_the_histogram_of_a_wrong_camera_and_the_right_one(tiny_dataset, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(tiny_dataset.root, root)
    (root / "intrinsics").mkdir()
    (root / "intrinsics/scene9001_00.txt").write_text("571.6 0 319.5\n0 571.6 239.5\n0 0 1\n")
    result = ditr("data", "check", root)
    assert result.exit_code == 1
    rows = [" ".join(line.split()) for line in result.output.splitlines()]
    assert any(row.startswith("0 - 0.01 4000") for row in rows)
    assert any(row.startswith("2 - 5 ") for row in rows)
    assert "fx 577.871 (577.871 to 577.871), declared 571.6" in rows
    assert "reprojection 2 no run starts" in rows


def test_check_names_the_frames_of_which_far_more_is_unannotated_than_of_the_others(tiny_dataset, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(tiny_dataset.root, root)
    (root / "manifest.json").unlink()
    assert "stands out" not in ditr("data", "check", root).output
    bare = np.fromfile(root / "instance_mask/scene9000_00_200.bin", np.int64)
    bare[: int(0.9 * len(bare))] = 0
    bare.tofile(root / "instance_mask/scene9000_00_200.bin")
    lines = ditr("data", "check", root).output.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("unannotated points: "))
    assert lines[at].endswith(f"{np.mean(bare == 0):.1%} at most")
    assert lines[at + 1 : at + 3] == [f"  stands out: scene9000_00_200, {np.mean(bare == 0):.1%}", ""]


def test_check_goes_on_where_entries_of_an_info_pickle_are_broken(tiny_dataset, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(tiny_dataset.root, root)
    path = root / INFO_FILES["val"]
    infos = read_infos(path)
    write_infos(path, replace(infos, frames=(*infos.frames, infos.frames[0])))
    (root / "points/scene9000_00_0.bin").unlink()
    result = ditr("data", "check", root)
    assert result.exit_code == 1
    assert "scene9001_00_0 is listed 2 times" in result.output
    assert "missing points: 1 problem" in result.output


def test_show_suggests_frames(tiny_dataset):
    result = ditr("data", "show", "synthrooms_tiny", "scene9000_00_20")
    assert isinstance(result.exception, DitrError)
    assert "scene9000_00_200" in result.exception.fix


def test_ls_lists_every_entry_and_its_state(tiny_dataset):
    result = ditr("data", "ls")
    rows = {line.split()[0]: line for line in result.output.splitlines()}
    assert " made " in rows["synthrooms_tiny"]
    assert "made on first use" in rows["synthrooms_pretrain"]
    assert "missing" in rows["scannet200_sv"]


@pytest.mark.parametrize("command", [("make", "scannet200_sv"), ("check", "scannet200_sv"), ("make", "synthroms")])
def test_what_cannot_be_done_is_said(command):
    result = ditr("data", *command)
    assert isinstance(result.exception, DitrError)
    assert result.exception.fix
