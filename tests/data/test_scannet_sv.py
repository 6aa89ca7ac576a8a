from __future__ import annotations

import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from ditr.data.scannet_sv import FrameSet
from ditr.errors import DitrError


@pytest.fixture
def broken_copy(tiny_dataset, tmp_path):
    """A copy of the tiny set that a test may break."""
    root = tmp_path / "copy"
    shutil.copytree(tiny_dataset.root, root)
    return FrameSet(root, infos=tiny_dataset.train.infos, intrinsics=tiny_dataset.train.intrinsics)


def test_a_frame_has_the_documented_shapes(tiny_dataset):
    frame = tiny_dataset.train.frame(0)
    assert frame.points.shape == (20_000, 6)
    assert frame.points.dtype == np.float32
    for ids in (frame.superpoints, frame.instance_ids, frame.semantic_ids):
        assert ids.shape == (20_000,)
        assert ids.dtype == np.int64
    assert frame.id.startswith(frame.scene)
    assert frame.image_path.is_file()
    assert tiny_dataset.train.image(0).shape == (480, 640, 3)


def test_a_frame_set_survives_pickling_for_loader_workers(tiny_dataset):
    back = pickle.loads(pickle.dumps(tiny_dataset.val))
    assert back.ids == tiny_dataset.val.ids
    assert np.array_equal(back.frame(1).points, tiny_dataset.val.frame(1).points)


def test_arrays_are_writable_and_belong_to_the_caller(tiny_dataset):
    first = tiny_dataset.train.frame(0)
    first.points[:] = 0
    assert tiny_dataset.train.frame(0).points.any()


@pytest.mark.parametrize("kind", ["points", "super_points", "instance_mask", "semantic_mask"])
def test_a_missing_or_short_file_is_named(broken_copy, kind):
    path = broken_copy.root / kind / f"{broken_copy.ids[0]}.bin"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DitrError, match="multiple of") as caught:
        broken_copy.frame(0)
    assert caught.value.where == str(path)
    path.unlink()
    with pytest.raises(DitrError, match="no such file") as caught:
        broken_copy.frame(0)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("kind", ["super_points", "instance_mask", "semantic_mask"])
def test_labels_of_another_count_are_an_error(broken_copy, kind):
    path = broken_copy.root / kind / f"{broken_copy.ids[0]}.bin"
    path.write_bytes(path.read_bytes() + bytes(8))
    with pytest.raises(DitrError, match="20001 ids for 20000 points"):
        broken_copy.frame(0)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("semantic_mask", 1358, "0 to 1357"),
        ("semantic_mask", -1, "0 to 1357"),
        ("instance_mask", -1, "0 and above"),
        ("super_points", 5000, "not contiguous"),
        ("super_points", -1, "0 and above"),
    ],
)
def test_ids_out_of_range_are_an_error(broken_copy, kind, value, message):
    path = broken_copy.root / kind / f"{broken_copy.ids[0]}.bin"
    ids = np.fromfile(path, dtype=np.int64)
    ids[7] = value
    ids.tofile(path)
    with pytest.raises(DitrError, match=message):
        broken_copy.frame(0)


@pytest.mark.parametrize("kind", ["super_points", "instance_mask", "semantic_mask"])
def test_ids_of_32_bits_are_told_as_such(broken_copy, kind):
    path = broken_copy.root / kind / f"{broken_copy.ids[0]}.bin"
    np.fromfile(path, dtype=np.int64).astype(np.int32).tofile(path)
    with pytest.raises(DitrError, match="as long as 20,000 int32, one a point; int64 is needed"):
        broken_copy.frame(0)


def test_nan_points_and_impossible_colours_are_errors(broken_copy):
    path = broken_copy.root / "points" / f"{broken_copy.ids[0]}.bin"
    points = np.fromfile(path, dtype=np.float32).reshape(-1, 6)
    points[3, 4] = 256
    points.tofile(path)
    with pytest.raises(DitrError, match="allowed are 0 to 255"):
        broken_copy.frame(0)
    points[3, 1] = np.nan
    points.tofile(path)
    with pytest.raises(DitrError, match="1 points are not finite"):
        broken_copy.frame(0)


def test_a_nan_pose_names_the_frame(broken_copy):
    info = broken_copy.infos.frames[0]
    infos = replace(broken_copy.infos, frames=(replace(info, pose_c2w=np.full((4, 4), -np.inf)),))
    frames = FrameSet(broken_copy.root, infos=infos, intrinsics=broken_copy.intrinsics)
    with pytest.raises(DitrError, match=info.id) as caught:
        frames.frame(0)
    assert "pose_centered" in caught.value.where


def test_frames_are_left_out_by_id_and_the_others_stay_what_they_were(tiny_dataset):
    first, second = tiny_dataset.train.ids
    of_scene = replace(tiny_dataset.train.intrinsics, fx=600.0)
    frames = FrameSet(
        tiny_dataset.root,
        infos=tiny_dataset.train.infos,
        intrinsics=tiny_dataset.train.intrinsics,
        scene_intrinsics={"scene9000_00": of_scene},
    )
    left = frames.without({first, "scene0000_00_0"})
    assert left.ids == (second,)
    assert np.array_equal(left.frame(0).points, tiny_dataset.train.frame(1).points)
    assert left.frame(0).intrinsics == left.intrinsics_of(0) == of_scene
    assert frames.ids == (first, second)
    assert frames.without(()).ids == frames.ids
    assert len(frames.without(frames.ids)) == 0


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("value", [1e30, -2e3])
def test_a_point_that_no_camera_sees_is_an_error(broken_copy, value, centred):
    path = broken_copy.root / "points" / f"{broken_copy.ids[0]}.bin"
    points = np.fromfile(path, dtype=np.float32).reshape(-1, 6)
    points[3, 1] = value
    points.tofile(path)
    frames = broken_copy.with_infos(replace(info, centred=centred) for info in broken_copy.infos.frames)
    with pytest.raises(DitrError, match="1 of 20000 points lie more than 1,000 m from the others"):
        frames.frame(0)


@pytest.mark.parametrize(("kind", "first"), [("super_points", 0), ("instance_mask", 1)])
def test_more_parts_than_a_step_can_take_are_an_error(broken_copy, kind, first):
    path = broken_copy.root / kind / f"{broken_copy.ids[0]}.bin"
    (first + np.arange(20_000) % 2_048).tofile(path)
    broken_copy.frame(0)
    (first + np.arange(20_000) % 2_049).tofile(path)
    with pytest.raises(DitrError, match=r"2,049 .*s, allowed are 2,048"):
        broken_copy.frame(0)


def test_more_points_than_the_memory_should_hold_are_not_read(broken_copy):
    path = broken_copy.root / "points" / f"{broken_copy.ids[0]}.bin"
    with path.open("r+b") as file:
        file.truncate(24 * 10**9)  # a file with a hole takes no room
    with pytest.raises(DitrError, match="24,000,000,000 bytes"):
        broken_copy.frame(0)


def test_an_image_of_more_pixels_than_the_memory_should_hold_is_not_decoded(broken_copy):
    path = broken_copy.root / broken_copy.infos.frames[0].image
    Image.new("1", (10_000, 6_000)).save(path, "PNG")
    with pytest.raises(DitrError, match="10,000 x 6,000 pixels"):
        broken_copy.image(0)


def test_images_missing_damaged_or_of_another_size(broken_copy):
    path = broken_copy.root / broken_copy.infos.frames[0].image
    whole = path.read_bytes()
    path.write_bytes(whole[:2000])
    with pytest.raises(DitrError, match="damaged"):
        broken_copy.image(0)
    Image.new("RGB", (320, 240)).save(path)
    with pytest.raises(DitrError, match="intrinsics"):
        broken_copy.image(0)
    path.unlink()
    with pytest.raises(DitrError, match="no such file"):
        broken_copy.image(0)


def world_of(frames: FrameSet, index: int) -> np.ndarray:
    return frames.frame(index).points[:, :3] + frames.shift_to_world(index)


def test_frames_of_a_scene_meet_in_its_world(tiny_dataset):
    """By the raw pose and the depth image alone, which are of before any centring."""
    frames = tiny_dataset.val
    for index, info in enumerate(frames.infos.frames):
        folder = frames.root / "2D" / info.scene
        pose = np.loadtxt(folder / "pose" / f"{info.number}.txt")
        depth = np.asarray(Image.open(folder / "depth" / f"{info.number}.png")) / 1000
        v, u = np.nonzero(depth)
        z, camera = depth[v, u], frames.intrinsics
        rays = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], axis=1)
        distance, _ = cKDTree(rays @ pose[:3, :3].T + pose[:3, 3]).query(world_of(frames, index)[::50])
        assert distance.max() < 1e-4
    assert not np.allclose(frames.shift_to_world(0), frames.shift_to_world(1), atol=0.01)


def test_a_world_that_is_not_there_or_another_is_an_error(broken_copy):
    info = broken_copy.infos.frames[0]
    path = broken_copy.root / "2D" / info.scene / "pose" / f"{info.number}.txt"
    pose = np.loadtxt(path)
    afar = pose.copy()
    afar[0, 3] = 1e5
    for wrong, message in (
        (np.linalg.inv(pose), "another direction"),
        (afar, "from the world's origin"),
        (pose[:3], "not 16 finite numbers"),
    ):
        np.savetxt(path, wrong)
        with pytest.raises(DitrError, match=message) as caught:
            broken_copy.shift_to_world(0)
        assert caught.value.where == str(path)
    path.unlink()
    with pytest.raises(DitrError, match="no such file") as caught:
        broken_copy.shift_to_world(0)
    assert "without --merge" in caught.value.fix
