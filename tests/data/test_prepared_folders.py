"""The embedded tiny set under the names and in the forms of ESAM's prepared folders is read as what it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ditr.data.dataset import Dataset, open_dataset, open_folder
from ditr.data.scannet_sv import FrameSet
from ditr.errors import DitrError
from ditr.spec.registry import Registry
from tests.reference.esam_infos import RawFrame, dump, scans_v1, scans_v2, single_v1, single_v2, with_clip

KINDS = ("points", "super_points", "instance_mask", "semantic_mask")
ORIGINS = {"scene9000_00": np.array([3.5, -2.25, 1.0]), "scene9001_00": np.array([-40.0, 12.5, 0.3])}
"""Where each frame set's centre lies in its scan's world."""


def raw_frames(frames: FrameSet) -> list[RawFrame]:
    return [RawFrame(i.scene, int(i.number), i.pose_c2w, i.axis_align) for i in frames.infos.frames]


def write_infos_of(tiny: Dataset, root: Path, *, form: str, clip: bool, variant: str = "sv") -> None:
    """Info pickles as ESAM's tools would have left them in ``root``."""
    told = f"./data/{root.name}"
    for split, frames in (("train", tiny.train), ("val", tiny.val)):
        raw = raw_frames(frames)
        content = single_v1(raw, root=told) if form == "v1" else single_v2(raw, root=told, categories={"chair": 0})
        path = root / f"scannet200_{variant}_oneformer3d_infos_{split}.pkl"
        dump(content, path)
        if clip:
            dump(with_clip(content), path.with_name(f"{path.stem}_clip.pkl"))


@pytest.mark.parametrize("form", ["v1", "v2"])
@pytest.mark.parametrize(
    ("name", "folder"), [("scannet200_sv", "scannet200-sv"), ("scannet200_sv_fast", "scannet200-sv_fast")]
)
def test_single_view_folders_are_read_as_they_are(tiny_dataset, tmp_path, monkeypatch, name, folder, form):
    monkeypatch.setenv("DITR_DATA", str(tmp_path))
    root = tmp_path / folder
    root.mkdir()
    for part in (*KINDS, "2D", "pose_centered"):
        (root / part).symlink_to(tiny_dataset.root / part)
    write_infos_of(tiny_dataset, root, form=form, clip=False)
    opened = open_dataset(name, registry=Registry())
    for mine, theirs in ((opened.train, tiny_dataset.train), (opened.val, tiny_dataset.val)):
        assert mine.ids == theirs.ids
        for index in range(len(mine)):
            a, b = mine.frame(index), theirs.frame(index)
            assert np.array_equal(a.points, b.points)
            assert np.array_equal(a.superpoints, b.superpoints)
            assert np.array_equal(a.instance_ids, b.instance_ids)
            assert np.array_equal(a.semantic_ids, b.semantic_ids)
            assert np.array_equal(a.pose_c2w, b.pose_c2w)
            assert np.array_equal(mine.image(index), theirs.image(index))
    assert opened.intrinsics == "default 577.871 577.871 319.5 239.5"


def test_a_registry_entry_may_name_the_clip_pickles(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("DITR_DATA", str(tmp_path))
    root = tmp_path / "scannet200-sv"
    shutil.copytree(tiny_dataset.root, root)
    write_infos_of(tiny_dataset, root, form="v2", clip=True)
    plain = open_dataset("scannet200_sv", registry=Registry())
    assert {info.features_file for info in plain.train.infos.frames} == {None}
    folder = tmp_path / "registry/datasets"
    folder.mkdir(parents=True)
    text = (Registry().folders[0] / "datasets/scannet200_sv.yaml").read_text()
    (folder / "with_clip.yaml").write_text(
        text.replace("train.pkl", "train_clip.pkl").replace("val.pkl", "val_clip.pkl")
    )
    clip = open_dataset("with_clip", registry=Registry(tmp_path / "registry"))
    assert clip.train.ids == plain.train.ids
    assert clip.train.infos.frames[1].features_file == "clip_feat/scene9000_00/200.pt"


@pytest.fixture(params=["v1", "v2"])
def scans(request, tiny_dataset, tmp_path) -> Path:
    """The tiny set as a multi-view folder: one file a frame in its scan's folder, points and poses in a raw world."""
    root = tmp_path / "scannet200-mv"
    root.mkdir()
    (root / "2D").symlink_to(tiny_dataset.root / "2D")
    for split, frames in (("train", tiny_dataset.train), ("val", tiny_dataset.val)):
        raw = raw_frames(frames)
        for frame in raw:
            for kind in KINDS:
                values = np.fromfile(tiny_dataset.root / kind / f"{frame.id}.bin", dtype=np.int64)
                if kind == "points":
                    values = values.view(np.float32).reshape(-1, 6).copy()
                    values[:, :3] = values[:, :3].astype(np.float64) + ORIGINS[frame.scene] + frame.number / 1000
                (root / kind / frame.scene).mkdir(parents=True, exist_ok=True)
                values.tofile(root / kind / frame.scene / f"{frame.number}.bin")
            frame.pose = frame.pose.copy()
            frame.pose[:3, 3] += ORIGINS[frame.scene] + frame.number / 1000
        told = "./data/scannet200-mv"
        content = scans_v1(raw, root=told) if request.param == "v1" else scans_v2(raw, root=told, categories={})
        dump(content, root / f"scannet200_mv_oneformer3d_infos_{split}.pkl")
    return root


def pixels(xyz: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """(N, 2) by the pinhole equations written out, point after point."""
    rotation, translation = pose[:3, :3], pose[:3, 3]
    result = []
    for point in xyz.astype(np.float64):
        x, y, z = rotation.T @ (point - translation)
        result.append((577.870605 * x / z + 319.5, 577.870605 * y / z + 239.5))
    return np.array(result)


def test_frames_of_scans_are_single_views_about_their_own_centre(scans, tiny_dataset, monkeypatch):
    monkeypatch.setenv("DITR_DATA", str(scans.parent))
    opened = open_dataset("scannet200_mv", registry=Registry())
    assert sorted(opened.train.ids) == sorted(tiny_dataset.train.ids)
    for index, frame_id in enumerate(opened.train.ids):
        frame, info = opened.train.frame(index), opened.train.infos.frames[index]
        stored = np.fromfile(scans / "points" / info.scene / f"{info.number}.bin", np.float32).reshape(-1, 6)
        mean = stored[:, :3].astype(np.float64).mean(axis=0)
        assert np.abs(frame.points[:, :3].mean(axis=0, dtype=np.float64)).max() < 1e-6
        assert np.allclose(frame.points[:, :3], stored[:, :3] - mean, atol=1e-6)
        assert np.array_equal(frame.points[:, 3:], stored[:, 3:])
        assert np.array_equal(opened.train.points(index), frame.points)
        assert np.array_equal(opened.train.pose(index), frame.pose_c2w)
        # Points and pose moved together: every point stays on its pixel, and the camera where it was to them.
        raw, centred = pixels(stored[:, :3], info.pose_c2w), pixels(frame.points[:, :3], frame.pose_c2w)
        assert np.abs(raw - centred).max() < 1e-3
        single = tiny_dataset.train.frame(tiny_dataset.train.ids.index(frame_id))
        assert np.abs(pixels(single.points[:, :3], single.pose_c2w) - centred).max() < 0.02
        assert np.array_equal(frame.superpoints, single.superpoints)
        assert np.array_equal(frame.instance_ids, single.instance_ids)
        assert np.array_equal(
            opened.train.image(index), tiny_dataset.train.image(tiny_dataset.train.ids.index(frame_id))
        )
        assert np.allclose(info.pose_c2w[:3, 3], frame.pose_c2w[:3, 3] + mean, atol=1e-9)
        assert np.array_equal(info.pose_c2w[:3, :3], frame.pose_c2w[:3, :3])
        assert np.allclose(opened.train.shift_to_world(index), mean, atol=1e-9)


def test_a_folder_with_scans_alone_is_found_by_its_path(scans, tiny_dataset):
    assert len(open_folder(scans, name="mine").train) == 2
    shutil.copy(tiny_dataset.root / "scannet200_sv_oneformer3d_infos_train.pkl", scans)
    mixed = open_folder(scans, name="mine")  # single views go before scans, of the splits that they have
    with pytest.raises(DitrError, match=r"no split val, it has train \(2 frames\)"):
        mixed.val  # noqa: B018


def test_errors_of_scans_name_their_own_files(scans):
    """Files lie in the scan's folder, and there is no pose_centered to point at."""
    frames = open_folder(scans, name="mine").val
    path = scans / "instance_mask" / "scene9001_00" / f"{frames.infos.frames[0].number}.bin"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DitrError, match="19999 ids for 20000 points") as caught:
        frames.frame(0)
    assert caught.value.where == str(path)
    frames.infos.frames[1].pose_c2w[0, 3] = np.nan
    with pytest.raises(DitrError, match="not finite") as caught:
        frames.frame(1)
    assert caught.value.where == str(scans / frames.infos.frames[1].image)


def matrix_text(fx: float, *, size: int = 3) -> str:
    matrix = np.eye(size)
    matrix[0, 0], matrix[1, 1], matrix[:2, 2] = fx, fx + 1, (320.25, 240.75)
    return "\n".join(" ".join(f"{value:.6f}" for value in row) for row in matrix) + "\n"


def test_a_scene_with_a_file_uses_its_own_intrinsics(tiny_dataset, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(tiny_dataset.root, root)
    plain = open_folder(root, name="set")
    (root / "intrinsics").mkdir()
    (root / "intrinsics/scene9000_00.txt").write_text(matrix_text(580.5, size=4))
    one = open_folder(root, name="set")
    own = one.train.frame(0).intrinsics
    assert (own.fx, own.fy, own.cx, own.cy, own.width, own.height) == (580.5, 581.5, 320.25, 240.75, 640, 480)
    assert one.train.intrinsics_of(1) == own
    assert one.val.intrinsics_of(0) == one.val.intrinsics == plain.train.intrinsics
    assert one.intrinsics == "files for 1 of 2 scenes, default 577.871 577.871 319.5 239.5 for the rest"
    (root / "intrinsics/scene9001_00.txt").write_text(matrix_text(590))
    both = open_folder(root, name="set")
    assert both.val.frame(0).intrinsics.fx == 590
    assert both.intrinsics == "a file for each of 2 scenes"
    # Numbers made with other intrinsics are of other data, also where a manifest stands for the rest.
    assert len({plain.digest, one.digest, both.digest}) == 3
    assert plain.digest == tiny_dataset.digest


MALFORMED = {
    "empty": "",
    "words": "fx fy cx",
    "text": "a b c\nd e f\ng h i",
    "four numbers": "577 577 319 239",
    "not square": "577 0 319 0\n0 577 239 0\n0 0 1 0",
    "not finite": "nan 0 319\n0 577 239\n0 0 1",
    "skewed": "577 2 319\n0 577 239\n0 0 1",
    "transposed": "577 0 0\n0 577 0\n319 239 1",
    "negative": "-577 0 319\n0 577 239\n0 0 1",
    "of a larger image": "1170 0 648\n0 1170 484\n0 0 1",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_intrinsics_are_told_with_their_file(tiny_dataset, tmp_path, text):
    shutil.copytree(tiny_dataset.root, tmp_path / "set")
    (tmp_path / "set/intrinsics").mkdir()
    path = tmp_path / "set/intrinsics/scene9001_00.txt"
    path.write_text(text)
    with pytest.raises(DitrError, match="1 intrinsics file is malformed") as caught:
        open_folder(tmp_path / "set", name="set")
    assert str(path) in caught.value.what


def test_a_users_folder_is_not_taken_at_its_manifests_word(tiny_dataset, tmp_path, monkeypatch):
    """An embedded set that was renamed and then changed must not find the feature maps of the original."""
    monkeypatch.setenv("DITR_DATA", str(tmp_path))
    shutil.copytree(tiny_dataset.root, tmp_path / "scannet200-sv")
    opened = open_dataset("scannet200_sv", registry=Registry())
    assert opened.digest != tiny_dataset.digest
    assert opened.digest == open_dataset("scannet200_sv", registry=Registry()).digest
