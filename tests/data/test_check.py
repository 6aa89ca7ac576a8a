from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from ditr.data.check import check_dataset
from ditr.data.dataset import open_folder

FRAME = "scene9000_00_0"


@pytest.fixture
def copy(tiny_dataset, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(tiny_dataset.root, root)
    return root


def kinds(root) -> dict[str, int]:
    return {problem.kind: problem.count for problem in check_dataset(open_folder(root, name="copy")).problems}


def test_the_embedded_set_has_no_problem_and_its_points_are_pixels(tiny_dataset):
    report = check_dataset(tiny_dataset)
    assert report.problems == ()
    assert report.statistics["reprojection error px, max"] < 0.05
    assert report.statistics["colour difference of 255, mean"] == 0
    assert report.statistics["superpoint purity"] > 0.85
    assert report.statistics["instances a frame of 100 points or more"] >= 3
    assert 0 <= report.statistics["texture-only share of val instances"] <= 1


def edit(root, kind, change):
    path = root / kind / f"{FRAME}.bin"
    values = np.fromfile(path, dtype=np.float32 if kind == "points" else np.int64)
    change(values)
    values.tofile(path)


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        ("points", np.nan, "points"),
        ("points", 0.01, "reprojection"),
        ("super_points", 7000, "super_points"),
        ("instance_mask", -1, "instance_mask"),
        ("semantic_mask", 2000, "semantic_mask"),
    ],
)
def test_a_broken_value_is_found_and_named(copy, kind, value, found):
    edit(copy, kind, lambda values: values.__setitem__(0, value if kind != "points" else values[0] + value))
    report = check_dataset(open_folder(copy, name="copy"))
    problems = {problem.kind: problem for problem in report.problems}
    assert set(problems) == {found, "digest"}
    assert problems[found].count == 1
    assert f"{kind}/{FRAME}.bin" in problems[found].examples[0]


@pytest.mark.parametrize("kind", ["points", "super_points", "instance_mask", "semantic_mask"])
def test_missing_short_and_wrongly_counted_files_are_found(copy, kind):
    path = copy / kind / f"{FRAME}.bin"
    whole = path.read_bytes()
    path.unlink()
    assert kinds(copy)[kind] == 1
    path.write_bytes(whole[:-1])
    assert kinds(copy)[kind] == 1
    path.write_bytes(whole[: -24 * 100])
    assert kinds(copy)["counts"] == 1


def test_images_depth_and_poses_are_checked(copy):
    (copy / "2D/scene9000_00/color/0.jpg").unlink()
    Image.new("RGB", (64, 48)).save(copy / "2D/scene9000_00/color/200.jpg")
    Image.fromarray(np.full((480, 640), 1234, dtype=np.uint16)).save(copy / "2D/scene9001_00/depth/0.png")
    (copy / "2D/scene9001_00/depth/200.png").unlink()
    np.save(copy / "pose_centered/scene9000_00/0.npy", np.eye(4))
    np.save(copy / "pose_centered/scene9001_00/0.npy", np.eye(4, dtype=np.float32))
    (copy / "pose_centered/scene9001_00/200.npy").write_bytes(b"")
    assert kinds(copy) == {"image": 2, "depth": 2, "pose_centered": 3, "digest": 1}


def test_an_image_of_another_frame_is_found_by_its_colours(copy):
    folder = copy / "2D/scene9000_00/color"
    shutil.copy(folder / "200.jpg", folder / "0.jpg")
    assert kinds(copy) == {"colour": 1, "digest": 1}


def test_points_need_not_be_centred_but_must_fit_the_pose(copy):
    edit(copy, "points", lambda values: values.reshape(-1, 6)[:, :3].__iadd__(100))
    assert kinds(copy)["reprojection"] == 1


def test_only_ten_of_many_problems_are_shown(tiny_dataset, monkeypatch):
    from ditr.data import check

    monkeypatch.setattr(check, "POINT_COUNT", 19_999)
    problem = check_dataset(tiny_dataset).problems[0]
    assert (problem.kind, problem.count, len(problem.examples)) == ("counts", 16, 10)
