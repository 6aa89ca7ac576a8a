"""Each format is imported from a generated capture, checked, and held against the room that it was rendered of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ditr.captures.formats import FORMATS
from ditr.cli.data_import import CaptureFormat
from ditr.cli.main import app
from ditr.data.dataset import Dataset, open_dataset
from ditr.geometry.camera import Intrinsics
from ditr.rooms.render import cast
from ditr.spec.registry import Registry
from tests.reference import captures
from tests.reference.captures import FLIP, Y_UP, Take, camera, poses, room, smaller, takes

SMALL = camera(160, 120)
FINE, COARSE = camera(320, 240), smaller(camera(320, 240), 128, 96)
PORTRAIT = camera(192, 256)


def ditr(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where entries and data go."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "ditr.toml").write_text("")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def shots() -> dict[str, list[Take]]:
    return {"small": takes(SMALL), "two": takes(FINE, COARSE)}


Written = tuple[Intrinsics, float]
"""The camera that is kept, and how far depth may be off in metres by the format's own rounding."""


def write_tum(root: Path, shots: dict[str, list[Take]]) -> Written:
    captures.tum(root, shots["small"], SMALL)
    return SMALL, 0.0007


def write_replica(root: Path, shots: dict[str, list[Take]]) -> Written:
    captures.replica(root, shots["small"], SMALL, change=lambda pose: pose)
    return SMALL, 0.0007


def write_esam(root: Path, shots: dict[str, list[Take]]) -> Written:
    captures.esam(root, shots["small"], SMALL)
    return SMALL, 0.0006


def write_rgbd(root: Path, shots: dict[str, list[Take]]) -> Written:
    said = "poses: world_to_camera\naxes: opengl\nup: y\n"
    captures.rgbd(root, shots["small"], SMALL, change=lambda pose: np.linalg.inv(Y_UP @ pose @ FLIP), said=said)
    return SMALL, 0.0006


def write_record3d(root: Path, shots: dict[str, list[Take]]) -> Written:
    captures.record3d(root, PORTRAIT, smaller(PORTRAIT, 96, 128), exr=False)
    return PORTRAIT, 0.0006


def write_record3d_exr(root: Path, shots: dict[str, list[Take]]) -> Written:
    captures.record3d(root, PORTRAIT, smaller(PORTRAIT, 96, 128), exr=True)
    return PORTRAIT, 0.0006


def write_arkitscenes(root: Path, shots: dict[str, list[Take]]) -> Written:
    captures.arkitscenes(root, shots["two"], FINE, COARSE)
    return FINE, 0.0011


WRITERS: dict[str, tuple[str, Callable[[Path, dict[str, list[Take]]], Written]]] = {
    "tum": ("tum", write_tum),
    "replica": ("replica", write_replica),
    "esam": ("esam", write_esam),
    "rgbd": ("rgbd", write_rgbd),
    "record3d": ("record3d", write_record3d),
    "record3d_exr": ("record3d", write_record3d_exr),
    "arkitscenes": ("arkitscenes", write_arkitscenes),
}


def test_every_reader_has_its_name_in_the_command() -> None:
    assert {*FORMATS, "scannet"} == set(CaptureFormat)


def world_points(dataset: Dataset, index: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) points and (4, 4) pose in the capture's world."""
    frames = dataset.val
    pose, centred = frames.world_pose(index), frames.pose(index)
    assert pose is not None
    assert np.abs(pose[:3, :3] - centred[:3, :3]).max() < 1e-12
    return frames.points(index)[:, :3] + (pose[:3, 3] - centred[:3, 3]), pose


@pytest.mark.parametrize("case", WRITERS)
def test_a_capture_becomes_a_data_set_that_is_the_room(
    case: str, shots: dict[str, list[Take]], tmp_path: Path, project: Path
) -> None:
    format, write = WRITERS[case]
    root = tmp_path / "42444946"
    root.mkdir()
    kept, depth_off = write(root, shots)
    done = ditr("data", "import", format, root, "mine", "--workers", 1)
    assert done.exit_code == 0, done.output
    assert "no problems" in done.output
    assert (project / "registry/datasets/mine.yaml").is_file()
    dataset = open_dataset("mine", registry=Registry())
    assert list(dataset.splits) == ["val"]
    assert dataset.root == tmp_path / "data/mine"
    assert len(dataset) == 3
    camera = dataset.val.intrinsics_of(0)
    assert np.allclose(
        [camera.fx, camera.fy, camera.cx, camera.cy], [kept.fx, kept.fy, kept.cx, kept.cy], rtol=1e-6, atol=1e-5
    )
    for index, true in enumerate(poses()):
        points, pose = world_points(dataset, index)
        assert np.abs(pose - true).max() < 2e-4, "TUM's trajectory has four decimals"
        camera_xyz = (points - true[:3, 3]) @ true[:3, :3]
        u = kept.fx * camera_xyz[:, 0] / camera_xyz[:, 2] + kept.cx
        v = kept.fy * camera_xyz[:, 1] / camera_xyz[:, 2] + kept.cy
        measured = cast(room().shapes, pose_c2w=true, intrinsics=kept).depth_m
        off = np.abs(measured[np.rint(v).astype(int), np.rint(u).astype(int)] - camera_xyz[:, 2])
        assert np.quantile(off, 0.5) < depth_off
        # where depth has fewer pixels than colour, an edge between two things is where the nearest pixel says
        assert np.mean(off < 0.02) > (0.99 if kept == SMALL else 0.94)
        assert points[:, 2].min() > -0.05, "+z is up, from the floor"
    colours = dataset.val.points(0)[:, 3:]
    assert np.abs(colours.mean(axis=0) - shots["small"][0].colour.reshape(-1, 3).mean(axis=0)).max() < 25
