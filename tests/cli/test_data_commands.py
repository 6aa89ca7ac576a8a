from __future__ import annotations

import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner

from ditr.cli.main import app
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


def test_check_exits_1_and_names_the_file(tiny_dataset, tmp_path):
    shutil.copytree(tiny_dataset.root, tmp_path / "copy")
    (tmp_path / "copy/points/scene9001_00_200.bin").unlink()
    result = ditr("data", "check", tmp_path / "copy")
    assert result.exit_code == 1
    assert "points/scene9001_00_200.bin: no such file" in result.output


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
