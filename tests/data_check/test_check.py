from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ditr.data.dataset import Dataset, open_folder
from ditr.data.info_pickle import FrameInfo, read_infos, write_infos
from ditr.data.scannet_sv import INFO_FILES, POINT_COUNT, FrameSet
from ditr.data.targets import make_targets
from ditr.data_check.check import CheckReport, check_dataset
from ditr.data_check.frame_check import check_frame
from ditr.data_check.label_statistics import label_statistics
from ditr.errors import DitrError

FRAME = "scene9000_00_0"


@pytest.fixture
def copy(tiny_dataset: Dataset, tmp_path: Path) -> Path:
    root = tmp_path / "copy"
    shutil.copytree(tiny_dataset.root, root)
    return root


def checked(root: Path) -> CheckReport:
    return check_dataset(open_folder(root, name="copy"))


def kinds(root: Path) -> dict[str, int]:
    return {problem.kind: problem.count for problem in checked(root).problems}


def change_infos(root: Path, split: str, change) -> None:
    """Writes the split's info pickle with other frames."""
    path = root / INFO_FILES[split]
    infos = read_infos(path)
    write_infos(path, replace(infos, frames=tuple(change(list(infos.frames)))))


def renamed(frame: FrameInfo, *, scene: str, number: str) -> FrameInfo:
    """An entry for a frame that no file is there for."""
    files = ("points_file", "superpoints_file", "instances_file", "semantics_file")
    return replace(
        frame,
        scene=scene,
        number=number,
        image=f"2D/{scene}/color/{number}.jpg",
        **dict.fromkeys(files, f"{scene}_{number}.bin"),
    )


def with_pose(pose: np.ndarray):
    """A change of infos that gives the first frame another pose."""

    def change(frames: list[FrameInfo]) -> list[FrameInfo]:
        return [replace(frames[0], pose_c2w=pose), *frames[1:]]

    return change


def test_the_embedded_set_has_no_problem_and_its_points_are_pixels(tiny_dataset: Dataset) -> None:
    report = check_dataset(tiny_dataset)
    assert report.sound
    assert report.broken == {}
    assert report.reprojection.medians[0] == report.reprojection.frames == 4
    assert report.statistics["distance to the nearest pixel's centre px, max"] < 0.05
    assert report.statistics["points outside the image, share"] == 0
    assert report.statistics["colour difference of 255, mean"] == 0
    assert report.statistics["superpoint purity"] > 0.85
    assert report.statistics["instances a frame of 100 points or more"] >= 3
    assert 0 <= report.statistics["texture-only share of val instances"] <= 1


def relabel(root: Path, kind: str, frames: Iterable[str], *, points: int = POINT_COUNT) -> None:
    """Only the first ``points`` of what is not 0 keep their ids."""
    for frame in frames:
        path = root / kind / f"{frame}.bin"
        ids = np.fromfile(path, dtype=np.int64)
        ids[np.flatnonzero(ids)[points:]] = 0
        ids.tofile(path)


@pytest.fixture
def labels(copy: Path) -> tuple[Path, dict[str, tuple[str, ...]]]:
    """A folder of the user's, and its frames by split."""
    (copy / "manifest.json").unlink()
    opened = open_folder(copy, name="copy")
    return copy, {"train": opened.train.ids, "val": opened.val.ids}


TO_TRAIN, TO_SCORE = {"no instance to train on": 1}, {"no instance to score": 1}


@pytest.mark.parametrize("kind", ["semantic_mask", "instance_mask"])
@pytest.mark.parametrize(
    ("splits", "keep", "found"),
    [
        (("train", "val"), 0, TO_TRAIN | TO_SCORE),
        (("train",), 0, TO_TRAIN),
        (("val",), 0, TO_SCORE),
        (("train", "val"), 99, TO_SCORE),  # what is too small to be scored is trained on
        (("train", "val"), POINT_COUNT, {}),
    ],
)
def test_a_split_without_an_instance_is_found(
    labels: tuple[Path, dict[str, tuple[str, ...]]],
    kind: str,
    splits: tuple[str, ...],
    keep: int,
    found: dict[str, int],
) -> None:
    root, frames = labels
    for split in splits:
        relabel(root, kind, frames[split], points=keep)
    report = checked(root)
    assert {problem.kind: problem.count for problem in report.problems} == found
    assert {problem.effect for problem in report.problems} <= {"refused"}
    assert report.broken == {}


def test_classes_that_no_model_predicts_are_no_instances(labels: tuple[Path, dict[str, tuple[str, ...]]]) -> None:
    """Walls, floors, and ids that are none of the 200 classes."""
    root, frames = labels
    for frame, raw_id in zip((*frames["train"], *frames["val"]), (1, 3, 4 * 5, 1357), strict=True):
        np.full(POINT_COUNT, raw_id, dtype=np.int64).tofile(root / "semantic_mask" / f"{frame}.bin")
    assert {problem.kind: problem.count for problem in checked(root).problems} == TO_TRAIN | TO_SCORE


@pytest.mark.parametrize(
    ("kind", "ids", "said"),
    [
        ("instance_mask", (0, 0), "every id in instance_mask is 0. Fix: number each object"),
        ("semantic_mask", (0, 0), "every id in semantic_mask is 0 where there is an instance. Fix: write class ids"),
        ("semantic_mask", (20, 1357), "ids in semantic_mask that no class has: 20, 1357. Fix: name them"),
        ("semantic_mask", (1, 3), "all are stuff (wall, floor). Fix: take what shall be found out of stuff"),
        ("semantic_mask", (2, 2), "all are of fewer than 100 points. Fix: evaluate on frames of larger ones"),
    ],
)
def test_why_there_is_no_instance_is_said_with_what_mends_it(
    labels: tuple[Path, dict[str, tuple[str, ...]]], kind: str, ids: tuple[int, int], said: str
) -> None:
    root, frames = labels
    for frame, id_ in zip(frames["val"], ids, strict=True):
        np.full(POINT_COUNT, id_, dtype=np.int64).tofile(root / kind / f"{frame}.bin")
        if id_ == 2:  # chairs, but small
            relabel(root, "instance_mask", [frame], points=99)
    (problem,) = checked(root).problems
    assert f"Cause: {said}" in problem.examples[0]


def test_what_is_counted_is_what_training_and_evaluation_get(tiny_dataset: Dataset) -> None:
    report = check_dataset(tiny_dataset)
    for frames in (tiny_dataset.train, tiny_dataset.val):
        for index in range(len(frames)):
            frame = frames.frame(index)
            of_points = make_targets(frame.instance_ids, frame.semantic_ids, frame.superpoints).instance_of_point
            sizes = np.bincount(of_points[of_points >= 0].numpy())
            values = check_frame(frames, index).values
            assert values["instances to train on a frame"] == len(sizes)
            assert values["instances to score a frame"] == (sizes >= 100).sum()
    assert report.statistics["train frames with no instance to train on"] == 0


def test_one_frame_without_an_instance_is_counted_and_fine(labels: tuple[Path, dict[str, tuple[str, ...]]]) -> None:
    root, frames = labels
    for split in ("train", "val"):
        relabel(root, "semantic_mask", frames[split][:1], points=0)
    report = checked(root)
    assert report.sound
    assert report.statistics["train frames with no instance to train on"] == 1
    assert report.statistics["val frames with no instance to score"] == 1


def test_a_split_of_which_every_usable_frame_is_void_has_nothing(
    labels: tuple[Path, dict[str, tuple[str, ...]]],
) -> None:
    root, frames = labels
    relabel(root, "instance_mask", frames["val"][:1], points=0)
    (root / "points" / f"{frames['val'][1]}.bin").unlink()
    assert kinds(root) == {"missing points": 1} | TO_SCORE
    (root / "points" / f"{frames['val'][0]}.bin").unlink()
    assert kinds(root) == {"missing points": 2}, "no frame is left, which is another mistake"


def test_worker_processes_find_the_same(tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from ditr.data_check import check

    monkeypatch.setattr(check, "_FRAMES_A_WORKER", 1)
    told: list[tuple[int, int]] = []
    report = check_dataset(tiny_dataset, workers=2, progress=lambda what, done, total: told.append((done, total)))
    assert report == check_dataset(tiny_dataset)
    assert told == [(done, 4) for done in range(5)]


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        ("points", np.nan, "point values"),
        ("super_points", 7000, "superpoint ids"),
        ("instance_mask", -1, "ids out of range"),
        ("semantic_mask", 2000, "ids out of range"),
    ],
)
def test_a_broken_value_is_found_named_and_breaks_its_frame(copy: Path, kind: str, value: float, found: str) -> None:
    path = copy / kind / f"{FRAME}.bin"
    values = np.fromfile(path, dtype=np.float32 if kind == "points" else np.int64)
    values[0] = value
    values.tofile(path)
    report = checked(copy)
    problems = {problem.kind: problem for problem in report.problems}
    assert set(problems) == {found, "digest"}
    assert problems[found].count == 1
    assert f"{kind}/{FRAME}.bin" in problems[found].examples[0]
    assert report.broken == {FRAME: (found,)}


@pytest.mark.parametrize("kind", ["points", "super_points", "instance_mask", "semantic_mask"])
def test_missing_truncated_and_wrongly_counted_files_are_told_apart(copy: Path, kind: str) -> None:
    path = copy / kind / f"{FRAME}.bin"
    whole = path.read_bytes()
    path.unlink()
    assert kinds(copy) == {f"missing {kind}": 1, "digest": 1}
    for truncated in (whole[:-1], b""):
        path.write_bytes(truncated)
        assert kinds(copy) == {f"truncated {kind}": 1, "digest": 1}
    path.write_bytes(whole[: -24 * 100] if kind != "super_points" else bytes(8 * 19_000))
    assert kinds(copy) == {"point count": 1, "digest": 1}


def test_a_file_that_cannot_be_read_is_one_problem_of_many(copy: Path) -> None:
    path = copy / "instance_mask" / f"{FRAME}.bin"
    path.unlink()
    path.mkdir()
    assert checked(copy).broken == {FRAME: ("unreadable instance_mask",)}


def test_frames_of_multi_view_infos_are_checked_in_their_raw_world(copy: Path, tiny_dataset: Dataset) -> None:
    """Read as such they have no pose_centered; their points are pixels all the same."""
    shutil.rmtree(copy / "pose_centered")

    def raw(frames: FrameSet) -> FrameSet:
        infos = []
        for info in frames.infos.frames:
            pose = np.loadtxt(copy / "2D" / info.scene / "pose" / f"{info.number}.txt")
            file = copy / "points" / info.points_file
            points = np.fromfile(file, dtype=np.float32).reshape(-1, 6)
            points[:, :3] += pose[:3, 3] - info.pose_c2w[:3, 3]
            points.tofile(file)
            infos.append(replace(info, pose_c2w=pose, centred=False))
        return FrameSet(copy, infos=replace(frames.infos, frames=tuple(infos)), intrinsics=frames.intrinsics)

    splits = {split: raw(frames) for split, frames in tiny_dataset.splits.items()}
    report = check_dataset(replace(tiny_dataset, root=copy, splits=splits))
    assert [problem.kind for problem in report.problems] == ["digest"]
    assert report.reprojection.medians[0] == 4


def test_superpoints_that_lost_their_last_points_count_as_truncated(copy: Path) -> None:
    """What is left has gaps in its ids, which would say little about the cause."""
    path = copy / "super_points" / f"{FRAME}.bin"
    path.write_bytes(path.read_bytes()[: 8 * 100])
    assert checked(copy).broken == {FRAME: ("truncated super_points",)}


def test_what_a_run_does_not_read_breaks_no_frame(copy: Path) -> None:
    Image.fromarray(np.full((480, 640), 1234, dtype=np.uint16)).save(copy / "2D/scene9001_00/depth/0.png")
    (copy / "2D/scene9001_00/depth/200.png").unlink()
    np.save(copy / "pose_centered/scene9000_00/0.npy", np.eye(4))
    np.save(copy / "pose_centered/scene9001_00/0.npy", np.eye(4, dtype=np.float32))
    (copy / "pose_centered/scene9001_00/200.npy").write_bytes(b"")
    (copy / "pose_centered/scene9000_00/200.npy").unlink()
    change_infos(copy, "train", lambda frames: [replace(frames[0], features_file="clip_feat/0.pt"), *frames[1:]])
    report = checked(copy)
    assert {problem.kind: problem.count for problem in report.problems} == {
        "depth": 1,
        "missing depth": 1,
        "pose_centered": 3,
        "missing pose_centered": 1,
        "missing features": 1,
        "digest": 1,
    }
    assert report.broken == {}
    assert not report.sound


def test_images_are_read_and_must_be_those_of_the_points(copy: Path) -> None:
    folder = copy / "2D/scene9000_00/color"
    (copy / "2D/scene9001_00/color/0.jpg").unlink()
    Image.new("RGB", (64, 48)).save(copy / "2D/scene9001_00/color/200.jpg")
    shutil.copy(folder / "200.jpg", folder / "0.jpg")
    assert checked(copy).broken == {
        FRAME: ("colour",),
        "scene9001_00_0": ("missing image",),
        "scene9001_00_200": ("image",),
    }


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda pose: np.full((4, 4), -np.inf), "pose not finite"),
        (lambda pose: pose * 1.01, "pose not rigid"),
        (lambda pose: pose @ np.diag([1.0, 1, -1, 1]), "pose not rigid"),
        (lambda pose: pose[::-1], "pose not rigid"),
    ],
    ids=["infinite", "scaled", "mirrored", "shuffled"],
)
def test_a_matrix_that_is_no_pose_breaks_its_frame(copy: Path, tiny_dataset: Dataset, spoil, found: str) -> None:
    change_infos(copy, "train", with_pose(spoil(tiny_dataset.train.pose(0))))
    report = checked(copy)
    assert report.broken == {FRAME: (found,)}
    assert report.reprojection.frames == 3


def test_an_inverted_pose_is_found_by_its_points_alone(copy: Path, tiny_dataset: Dataset) -> None:
    change_infos(copy, "train", with_pose(np.linalg.inv(tiny_dataset.train.pose(0))))
    report = checked(copy)
    assert (report.reprojection.none, report.reprojection.refused) == (1, 1)
    assert report.reprojection.examples[0].startswith(FRAME)
    assert not report.sound


def test_declared_intrinsics_that_the_points_were_not_made_with_are_found(tiny_dataset: Dataset) -> None:
    declared = replace(tiny_dataset.train.intrinsics, fx=571.6, fy=571.6)
    opened = open_folder(tiny_dataset.root, name="tiny", intrinsics=declared)
    found = check_dataset(opened).reprojection
    assert found.refused == found.frames == 4
    assert found.fitting[0][0] == pytest.approx(577.870605, abs=1e-3)


def test_points_need_not_be_centred_but_must_fit_the_pose(copy: Path) -> None:
    path = copy / "points" / f"{FRAME}.bin"
    points = np.fromfile(path, dtype=np.float32).reshape(-1, 6)
    points[:, :3] += 100
    points.tofile(path)
    assert checked(copy).reprojection.none == 1


def test_splits_are_compared_with_each_other_and_with_their_lists(copy: Path) -> None:
    (copy / "meta_data").mkdir()
    (copy / "meta_data/scannetv2_sv_train.txt").write_text(f"{FRAME}\nscene9009_00_0\nscene9001_00_0\n")
    (copy / "meta_data/scannetv2_sv_val.txt").write_text("scene9001_00_0\nscene9001_00_0\n")
    change_infos(copy, "val", lambda frames: [*frames, renamed(frames[0], scene="scene9000_00", number="400")])
    report = checked(copy)
    problems = {problem.kind: problem for problem in report.problems}
    assert problems["scene in both splits"].count == 1
    assert problems["frame list"].count == 1
    assert problems["listed, not in the info pickle"].examples == (
        "scene9009_00_0: its points are not on disk",
        "scene9001_00_0: its points are on disk",
    )
    assert report.broken == {
        "scene9000_00_400": tuple(
            f"missing {kind}" for kind in ("image", "instance_mask", "points", "semantic_mask", "super_points")
        ),
        "scene9009_00_0": ("listed, not in the info pickle",),
    }
    assert report.named == 6
    assert report.statistics["train frames that are not in its frame list"] == 1


def test_broken_info_pickles_are_reported_with_everything_else(copy: Path) -> None:
    train = read_infos(copy / INFO_FILES["train"]).frames
    change_infos(copy, "val", lambda frames: [*frames, frames[0], train[0], replace(frames[1], number="x")])
    (copy / "points" / f"{FRAME}.bin").unlink()
    with pytest.raises(DitrError):
        open_folder(copy, name="copy")
    opening: list[tuple[str, str]] = []
    opened = open_folder(copy, name="copy", report=lambda kind, text: opening.append((kind, text)))
    report = check_dataset(opened, opening=opening)
    found = {problem.kind: problem.count for problem in report.problems}
    assert found["frame in both splits"] == 1
    assert found["info pickle"] >= 1
    assert found["missing points"] == 2, "in both splits"


def test_only_ten_of_many_problems_are_shown(copy: Path) -> None:
    change_infos(copy, "val", lambda frames: [renamed(frames[0], scene="hall", number=str(n)) for n in range(16)])
    (copy / "manifest.json").unlink()
    problem = next(problem for problem in checked(copy).problems if problem.kind == "missing points")
    assert (problem.count, len(problem.examples)) == (16, 10)


def test_label_statistics_by_hand() -> None:
    found = label_statistics(
        superpoints=np.array([0, 0, 0, 1, 1, 2]),
        instances=np.array([5, 5, 9, 9, 9, 0]),
        semantics=np.array([3, 4, 7, 7, 7, 0]),
    )
    assert found["superpoint purity"] == pytest.approx(5 / 6)
    assert found["instances a frame"] == 2
    assert found["instances of several semantic classes a frame"] == 1
    assert found["unannotated share of points"] == pytest.approx(1 / 6)
    assert found["superpoints a frame"] == 3
