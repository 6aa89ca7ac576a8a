"""Frames that are not ScanNet's: without labels, of any name and size, of one split, of classes of their own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ditr.data.class_table import own_classes
from ditr.data.dataset import Dataset, open_dataset, open_folder
from ditr.data.frame import scene_of
from ditr.data.frame_view import instance_names, view_of
from ditr.data.info_pickle import FrameInfo, InfoFile, read_infos, write_infos
from ditr.data.samples import SampleSet
from ditr.data.scannet_sv import INFO_FILES
from ditr.data.targets import make_targets
from ditr.data_check.check import check_dataset
from ditr.errors import DitrError
from ditr.evaluation.instance_facts import instance_rows
from ditr.report.frame_pictures import draw_data
from ditr.spec.registry import Registry

CAMERA = "{fx: 577.870605, fy: 577.870605, cx: 319.5, cy: 239.5, width: 640, height: 480}"
POINTS = (700, 23_456)
KITCHEN = "Küche-2.a_b"


@pytest.fixture(scope="module")
def own(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames of the tiny set as somebody else would have them: other names and sizes, labels dropped."""
    root = tmp_path_factory.mktemp("own") / "mine"
    infos = []
    for index, count in enumerate(POINTS):
        frame, number = tiny_dataset.train.frame(index), f"{index}.5"
        chosen = np.resize(np.random.default_rng(index).permutation(len(frame.points)), count)
        name = f"{KITCHEN}_{number}"
        for kind, values in (
            ("points", frame.points[chosen]),
            ("super_points", np.unique(frame.superpoints[chosen], return_inverse=True)[1].astype(np.int64)),
            ("instance_mask", frame.instance_ids[chosen]),
            ("semantic_mask", np.where(frame.instance_ids[chosen] > 0, 1 + frame.instance_ids[chosen] % 3, 0)),
        ):
            (root / kind).mkdir(parents=True, exist_ok=True)
            values.tofile(root / kind / f"{name}.bin")
        image = f"2D/{KITCHEN}/color/{number}.jpg"
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_dataset.train.image_path(index), root / image)
        (root / "pose_centered" / KITCHEN).mkdir(parents=True, exist_ok=True)
        np.save(root / "pose_centered" / KITCHEN / f"{number}.npy", frame.pose_c2w)
        files = dict.fromkeys(("points_file", "superpoints_file", "instances_file", "semantics_file"), f"{name}.bin")
        infos.append(
            FrameInfo(scene=KITCHEN, number=number, image=image, pose_c2w=frame.pose_c2w, axis_align=np.eye(4), **files)
        )
    for name, dropped in (
        ("bare", ("instances_file", "semantics_file")),
        ("unnamed", ("semantics_file",)),
        ("all", ()),
    ):
        left = tuple(replace(info, **dict.fromkeys(dropped)) for info in infos)
        write_infos(root / f"{name}.pkl", InfoFile(dataset="mine", categories={}, frames=left))
    return root


def opened(root: Path, infos: str, *, split: str = "val", more: str = "") -> Dataset:
    registry = root.parent / "registry"
    (registry / "datasets").mkdir(parents=True, exist_ok=True)
    (registry / "datasets/mine.yaml").write_text(
        f"kind: folder\npath: {root}\ninfos: {{{split}: {infos}.pkl}}\nintrinsics: {CAMERA}\n{more}"
    )
    return open_dataset("mine", registry=Registry(registry))


def test_frames_without_labels_are_read_checked_and_looked_at(own: Path) -> None:
    dataset = opened(own, "bare")
    assert dataset.ids == dataset.val.ids == (f"{KITCHEN}_0.5", f"{KITCHEN}_1.5")
    assert [scene_of(frame) for frame in dataset.ids] == [KITCHEN] * 2
    for index, count in enumerate(POINTS):
        frame = dataset.val.frame(index)
        assert (frame.points.shape, frame.instance_ids, frame.semantic_ids) == ((count, 6), None, None)
        assert (view_of(dataset.val, index).instance_of_point == -1).all()
        assert instance_names(frame) == ()
    report = check_dataset(dataset)
    assert report.sound, report.problems
    assert report.named == 2
    assert report.statistics["val frames without labels"] == 2
    samples = SampleSet(dataset.val, seed=0, voxel_size_m=0.02, augmentation=None, tokens=None)
    assert samples[0].targets.labels.numel() == 0
    assert (samples[0].targets.instance_of_point == -1).all()


def test_what_needs_labels_or_a_split_names_what_lacks(own: Path) -> None:
    dataset = opened(own, "bare")
    with pytest.raises(DitrError, match=f"2 of 2 frames of val have no labels, the first is {KITCHEN}_0.5"):
        dataset.require_labels("val")
    with pytest.raises(DitrError, match=r"mine has no split train, it has val \(2 frames\)"):
        dataset.require_labels("train")
    opened(own, "unnamed", split="train").require_labels("train")


def test_the_usual_files_of_one_split_make_a_folder(own: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(own, tmp_path / "one"))
    shutil.copy(root / "bare.pkl", root / INFO_FILES["train"])
    assert list(open_folder(root, name="one").splits) == ["train"]


def test_instances_without_classes_are_things_of_no_name(own: Path) -> None:
    frame = opened(own, "unnamed").val.frame(1)
    targets = make_targets(frame.instance_ids, frame.semantic_ids, frame.superpoints)
    assert targets.ids.tolist() == sorted(set(frame.instance_ids.tolist()) - {0})
    assert (targets.class_of_superpoint == 200).all()
    assert instance_names(frame)[4] == "instance 5"
    sample = SampleSet(opened(own, "unnamed").val, seed=0, voxel_size_m=0.02, augmentation=None, tokens=None)[1]
    rows = instance_rows(sample, classes=frame.classes, best_iou=np.zeros(len(targets.ids)), texture_ids=None)
    assert {(row["class_name"], row["frequency"]) for row in rows} == {(None, None)}


def test_classes_of_ones_own_decide_what_is_a_thing_and_what_it_is_called(own: Path) -> None:
    dataset = opened(own, "all", more="classes: {1: robot, 2: chair, 3: hull}\nstuff: [hull]\n")
    frame = dataset.val.frame(1)
    targets = make_targets(frame.instance_ids, frame.semantic_ids, frame.superpoints, table=frame.classes)
    ids = sorted(set(frame.instance_ids.tolist()) - {0})
    assert targets.ids.tolist() == [instance for instance in ids if instance % 3 != 2]  # 3 is 1 + 2
    names = {instance: ("robot", "chair", "hull")[instance % 3] for instance in ids}
    assert [frame.classes.things[label] for label in targets.labels] == [names[i] for i in targets.ids.tolist()]
    assert [instance_names(frame)[instance - 1] for instance in ids] == list(names.values())
    assert set(targets.class_of_superpoint.tolist()) == {2, 200}, "a chair is one of ScanNet200's, a robot is not"
    samples = SampleSet(dataset.val, seed=0, voxel_size_m=0.02, augmentation=None, tokens=None)
    rows = list(instance_rows(samples[1], classes=frame.classes, best_iou=np.zeros(len(targets.ids)), texture_ids=None))
    assert [row["class_name"] for row in rows] == [names[instance] for instance in targets.ids.tolist()]
    assert {row["frequency"] for row in rows} == {None}, "frequencies are those of ScanNet200"
    assert dataset.digest != opened(own, "all").digest
    assert check_dataset(dataset).statistics["instances to train on a frame"] > 0


def test_a_class_id_that_is_none_is_a_mistake_with_its_place(own: Path) -> None:
    with pytest.raises(DitrError, match=r"mine.yaml:5:11: classes.0: a key must be a class id, 1 to 65535"):
        opened(own, "all", more="classes: {0: robot}")


def test_stuff_must_be_a_class() -> None:
    with pytest.raises(DitrError, match="'wall' is no name of a class"):
        own_classes({1: "robot"}, stuff=["wall"])


@pytest.mark.parametrize("name", ["../x_1", "a b_1", ".x_1", "x", "_1", "x_", "x_.1", "x_1."])
def test_names_that_are_no_safe_file_names_are_refused(own: Path, tmp_path: Path, name: str) -> None:
    (info, *_) = read_infos(own / "bare.pkl").frames
    broken = replace(info, points_file=f"{name}.bin", superpoints_file=f"{name}.bin")
    write_infos(tmp_path / "a.pkl", InfoFile(dataset="d", categories={}, frames=(broken,)))
    with pytest.raises(DitrError, match=r"not of the form|leaves the data set's folder"):
        read_infos(tmp_path / "a.pkl")


def test_a_frame_without_labels_is_drawn_with_its_superpoints_in_their_place(own: Path, tmp_path: Path) -> None:
    draw_data(view_of(opened(own, "bare").val, 0), names=(), depth_m=None, path=tmp_path / "bare.png")
    pixels = np.asarray(Image.open(tmp_path / "bare.png").convert("RGB")).astype(int)
    bottom_right = pixels[pixels.shape[0] // 2 :, 2 * pixels.shape[1] // 3 :]
    assert (np.ptp(bottom_right, axis=2) > 60).sum() > 500, "unlabelled instances would be grey"
