"""What is written of predicted frames and scenes: read back by readers that are not ours, or not of this."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ditr.data.frame_view import FrameView, Prediction
from ditr.evaluation.instances import Instances
from ditr.evaluation.scene import empty_scene, merge
from ditr.report.frame_pictures import draw_run_view
from ditr.report.instance_colours import REACH_PX, masks_on_image
from ditr.report.ply import write_ply
from ditr.report.prediction_files import FOLDERS, write_frame
from ditr.report.scene_files import SCENES, write_scene
from ditr.scannet.mesh import read_vertices
from tests.reference.hand_made_frame import hand_made

FOUND = Instances(
    masks=np.array([[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 1, 1, 0, 0]], dtype=bool),
    scores=np.array([0.9, 0.6, 0.3], dtype=np.float32),
)
"""Of ``hand_made``."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in (*FOLDERS, SCENES):
        (tmp_path / kind).mkdir()
    return tmp_path


def test_points_in_ply_are_read_by_others(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    rng = np.random.default_rng(0)
    xyz, rgb = rng.normal(size=(50, 3)), rng.integers(0, 256, (50, 3)).astype(np.uint8)
    instance = rng.integers(-1, 5, 50)
    write_ply(tmp_path / "a.ply", xyz=xyz, rgb=rgb, instance=instance)
    np.testing.assert_allclose(read_vertices(tmp_path / "a.ply"), xyz, atol=1e-6)
    cloud = trimesh.load(tmp_path / "a.ply")
    np.testing.assert_allclose(cloud.vertices, xyz, atol=1e-6)
    np.testing.assert_array_equal(cloud.colors[:, :3], rgb)
    data = cloud.metadata["_ply_raw"]["vertex"]["data"]
    np.testing.assert_array_equal(np.asarray(data["instance"]).ravel(), instance)


def test_a_frame_is_written_as_the_view_draws_it_and_the_numbers_say(folder: Path) -> None:
    view = hand_made()
    write_frame(folder, view, FOUND, model="run", best_score=0.5)
    name = view.frame_id
    draw_run_view(view, run="run", best_score=0.5, path=folder / "view.png")
    assert (folder / "panels" / f"{name}.png").read_bytes() == (folder / "view.png").read_bytes()
    with np.load(folder / "instances" / f"{name}.npz") as numbers:
        np.testing.assert_array_equal(numbers["masks"], FOUND.masks)
        np.testing.assert_array_equal(numbers["scores"], FOUND.scores)
        np.testing.assert_array_equal(numbers["xyz"], view.in_space.xyz)
        np.testing.assert_array_equal(numbers["pose_c2w"], view.in_space.pose_c2w)
    points = np.frombuffer((folder / "points" / f"{name}.ply").read_bytes()[-6 * 19 :], dtype="<f4, <f4, <f4, 3u1, <i4")
    assert points["f4"].tolist() == [0, 0, -1, -1, 1, -1], "the third has less than the score"
    colours = [tuple(one) for one in points["f3"].tolist()]
    assert colours[0] == colours[1]
    assert len({colours[0], colours[4]}) == 2
    assert colours[2:4] == [tuple(one) for one in view.in_space.rgb[2:4].tolist()], "others keep their own"


def with_points(uv: list[tuple[float, float]], of_point: list[int], *, valid: list[bool] | None = None) -> FrameView:
    prediction = Prediction(
        of_point=np.array(of_point), scores=np.array([0.9, 0.8], dtype=np.float32), partner=np.array([-1, -1])
    )
    uv_valid = np.ones(len(uv), dtype=bool) if valid is None else np.array(valid)
    return replace(hand_made(), uv=np.array(uv, dtype=np.float32), uv_valid=uv_valid, prediction=prediction)


def test_masks_cover_the_pixels_that_are_nearest_to_a_point_of_theirs() -> None:
    view = with_points([(10, 10), (20, 10), (30, 10), (63, 47)], [0, 1, -1, 0], valid=[True, True, True, False])
    drawn = masks_on_image(view, view.predicted.of_point)
    v, u = np.mgrid[:48, :64]
    distance = np.hypot(u[..., None] - [10, 20, 30], v[..., None] - [10, 10, 10])
    covered = (distance.min(axis=2) <= REACH_PX) & (distance.argmin(axis=2) < 2)
    same = (drawn == view.image).all(axis=2)
    close = np.sort(distance, axis=2)
    clear = close[..., 1] - close[..., 0] > 0  # between two points either will do
    np.testing.assert_array_equal(~same[clear], covered[clear])
    assert len({tuple(drawn[10, 10]), tuple(drawn[10, 20]), tuple(drawn[10, 30])}) == 3
    nobody = with_points([(0, 0)], [0], valid=[False])
    np.testing.assert_array_equal(masks_on_image(nobody, np.array([0])), nobody.image)


def test_a_scene_has_the_same_numbers_in_all_its_files(folder: Path) -> None:
    grid = np.meshgrid(*[np.arange(6) * 0.05 + 0.01] * 3)
    xyz = np.stack(grid, axis=-1).reshape(-1, 3) + np.array([500.0, -300.0, 2.0])
    masks = np.array([xyz[:, 0] < 500.1, xyz[:, 0] > 500.2])
    rgb = np.full((len(xyz), 3), 90)
    scene = merge(empty_scene(), xyz=xyz, rgb=rgb, masks=masks, scores=np.array([0.4, 0.8]))
    truth = np.where(scene.xyz[:, 2] > 2.1, 0, -1)
    write_scene(folder, "room", scene, truth=truth, forward=np.array([0, 1, 0]), title="room")
    place = folder / SCENES
    with np.load(place / "room.npz") as numbers:
        assert numbers["scores"].tolist() == [0.4, 0.8]
        np.testing.assert_array_equal(numbers["truth"], truth)
        found = numbers["instance"]
        for instance, mask in enumerate(numbers["masks"]):
            np.testing.assert_array_equal(found == instance, mask)
        np.testing.assert_array_equal(numbers["masks"].sum(axis=1), masks.sum(axis=1))
    points = np.frombuffer((place / "room.ply").read_bytes()[-len(xyz) * 19 :], dtype="<f4, <f4, <f4, 3u1, <i4")
    np.testing.assert_array_equal(points["f4"], found)
    np.testing.assert_allclose(points["f0"], scene.xyz[:, 0], rtol=1e-6)
    assert np.asarray(Image.open(place / "room.png")).std() > 10
    write_scene(folder, "bare", scene, truth=None, forward=np.array([0, 1, 0]), title="bare")
    with np.load(place / "bare.npz") as numbers:
        assert "truth" not in numbers.files
