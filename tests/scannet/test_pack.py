from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ditr.cli.main import app
from ditr.data.classes import THING_NAMES
from ditr.data.info_pickle import read_infos
from ditr.errors import DitrError
from ditr.scannet.pack import pack

TRAIN = ["scene9000_00_200", "scene9000_00_0"]
VAL = ["scene9001_00_0", "scene9001_00_200"]
INFOS = "scannet200_sv_oneformer3d_infos_{}.pkl"
ALIGNMENT = np.array([[0.6, -0.8, 0, 1.5], [0.8, 0.6, 0, -2.25], [0, 0, 1, 0.125], [0, 0, 0, 1]])


@pytest.fixture
def folder(tiny_dataset, tmp_path: Path) -> Path:
    """A prepared folder without info pickles; ``3D`` has the first scene only."""
    root = Path(shutil.copytree(tiny_dataset.root, tmp_path / "folder"))
    for pickled in root.glob("*.pkl"):
        pickled.unlink()
    (root / "meta_data").mkdir()
    for split, frames in (("train", TRAIN), ("val", VAL)):
        (root / "meta_data" / f"scannetv2_sv_{split}.txt").write_text("\n".join(frames) + "\n")
    text = root / "3D" / "scene9000_00" / "scene9000_00.txt"
    text.parent.mkdir(parents=True)
    text.write_text("axisAlignment = " + " ".join(str(value) for value in ALIGNMENT.reshape(-1)) + " \n")
    return root


def content(path: Path) -> dict:
    return pickle.loads(path.read_bytes())


def test_the_pickle_has_esams_structure(folder):
    packed = pack(folder)
    assert {split: (done.frames, done.lacking, done.unaligned_scenes) for split, done in packed.items()} == {
        "train": (2, (), 0),
        "val": (2, (), 1),
    }
    train, val = (content(folder / INFOS.format(split)) for split in ("train", "val"))
    assert train["metainfo"] == {
        "categories": {name: label for label, name in enumerate(THING_NAMES)},
        "dataset": "scannet200_sv",
        "info_version": "1.1",
    }
    assert [entry["lidar_points"]["lidar_path"] for entry in train["data_list"]] == [f"{frame}.bin" for frame in TRAIN]
    entry = train["data_list"][0]
    pose = entry.pop("pose")
    assert pose.dtype == np.float64
    np.testing.assert_array_equal(pose, np.load(folder / "pose_centered" / "scene9000_00" / "200.npy"))
    assert entry == {
        "lidar_points": {"num_pts_feats": 6, "lidar_path": "scene9000_00_200.bin"},
        "pts_semantic_mask_path": "scene9000_00_200.bin",
        "pts_instance_mask_path": "scene9000_00_200.bin",
        "super_pts_path": "scene9000_00_200.bin",
        "img_path": "2D/scene9000_00/color/200.jpg",
        "axis_align_matrix": ALIGNMENT.tolist(),
        "instances": [],
    }
    assert val["data_list"][0]["axis_align_matrix"] == np.eye(4).tolist()
    assert not list(folder.glob("*_clip.pkl"))


def test_feature_paths_follow_the_forks_rule_or_a_template(folder):
    for kind in ("points", "super_points", "instance_mask", "semantic_mask"):
        shutil.copy(folder / kind / f"{TRAIN[0]}.bin", folder / kind / "scene9000_00_40.bin")
    shutil.copy(folder / "pose_centered/scene9000_00/0.npy", folder / "pose_centered/scene9000_00/40.npy")
    shutil.copy(folder / "2D/scene9000_00/color/0.jpg", folder / "2D/scene9000_00/color/40.jpg")
    (folder / "meta_data/scannetv2_sv_train.txt").write_text("\n".join([*TRAIN, "scene9000_00_40"]))
    (folder / "clip_feat/scene9000_00").mkdir(parents=True)
    (folder / "clip_feat/scene9000_00/0.pt").touch()
    packed = pack(folder, features="clip_feat/{scene}/{frame}.pt")["train"]
    assert (packed.features_named, packed.features_there) == (2, 1)
    entries = content(folder / "scannet200_sv_oneformer3d_infos_train_clip.pkl")["data_list"]
    assert [entry.get("clip_feat_path") for entry in entries] == [
        "clip_feat/scene9000_00/200.pt",
        "clip_feat/scene9000_00/0.pt",
        None,
    ]
    plain = content(folder / INFOS.format("train"))["data_list"]
    assert not any("clip_feat_path" in entry for entry in plain)
    assert [info.features_file for info in read_infos(packed.features_path).frames][2] is None
    pack(folder, features="dino/{scene}/color/{frame}.pt")
    entries = content(folder / "scannet200_sv_oneformer3d_infos_val_clip.pkl")["data_list"]
    assert entries[1]["clip_feat_path"] == "dino/scene9001_00/color/200.pt"


@pytest.mark.parametrize(
    "template", ["clip_feat/{frame}.pt", "{scene}/{frame}/{view}.pt", "/feat/{scene}/{frame}.pt", "../{scene}/{frame}"]
)
def test_a_template_must_name_scene_and_frame_below_the_folder(folder, template):
    with pytest.raises(DitrError, match="no template"):
        pack(folder, features=template)
    assert not list(folder.glob("*.pkl"))


def test_listed_frames_without_files_are_an_error_or_are_left_out(folder):
    (folder / "super_points" / f"{TRAIN[0]}.bin").unlink()
    (folder / "2D/scene9001_00/color/0.jpg").unlink()
    with pytest.raises(DitrError, match="2 of 4 listed frames lack a file") as error:
        pack(folder)
    assert f"{TRAIN[0]}: super_points/{TRAIN[0]}.bin" in str(error.value)
    assert f"{VAL[0]}: 2D/scene9001_00/color/0.jpg" in str(error.value)
    assert not list(folder.glob("*.pkl"))
    packed = pack(folder, skip_missing=True)
    assert [frame.id for frame in read_infos(packed["train"].path).frames] == TRAIN[1:]
    assert len(packed["val"].lacking) == 1
    (folder / "pose_centered/scene9001_00/200.npy").unlink()
    with pytest.raises(DitrError, match="3 of 4 listed") as error:
        pack(folder, skip_missing=True)
    assert "a frame of val" in error.value.fix


def test_a_damaged_pose_is_said(folder):
    np.save(folder / "pose_centered/scene9001_00/200.npy", np.eye(3))
    with pytest.raises(DitrError, match=r"\(3, 3\)"):
        pack(folder)


def test_the_command(folder):
    def run(*arguments: str):
        return CliRunner().invoke(app, ["data", "pack", str(folder), *arguments])

    result = run("--features", "--image-root", "./data/scannet200-sv")
    assert result.exit_code == 0, result.output
    assert "train: 2 frames in scannet200_sv_oneformer3d_infos_train.pkl" in result.output
    assert "names 2 feature maps, 0 of them are there" in result.output
    assert "1 scenes have no text file" in result.output
    entry = content(folder / INFOS.format("val"))["data_list"][0]
    assert entry["img_path"] == "./data/scannet200-sv/2D/scene9001_00/color/0.jpg"
    assert read_infos(folder / INFOS.format("val")).frames[0].image == "2D/scene9001_00/color/0.jpg"
    assert run("--features-template", "x/{scene}/{frame}.pt").exit_code == 2
