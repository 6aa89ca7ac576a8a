"""What runs do about broken frames, on a folder of the user's (no manifest, so that its digest is of its files)."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from ditr.data.dataset import Dataset, open_folder
from ditr.data.info_pickle import read_infos, write_infos
from ditr.data.scannet_sv import INFO_FILES, POINT_COUNT
from ditr.data_check import screening
from ditr.data_check.check import CheckReport, check_dataset
from ditr.data_check.screening import check_and_keep, kept_report, screen
from ditr.errors import Code, DitrError

BROKEN = "scene9000_00_0"


@pytest.fixture
def root(tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DITR_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mine"
    shutil.copytree(tiny_dataset.root, folder)
    (folder / "manifest.json").unlink()
    return folder


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of the data set of each check that is made."""
    made: list[str] = []

    def check(dataset: Dataset, **options: object) -> CheckReport:
        made.append(dataset.name)
        return check_dataset(dataset)

    monkeypatch.setattr(screening, "check_dataset", check)
    return made


def opened(root: Path) -> Dataset:
    return open_folder(root, name="mine")


def test_a_sound_data_set_is_checked_once(root: Path, checks: list[str]) -> None:
    first = opened(root)
    assert screen(first, policy="refuse").dataset.ids == first.ids
    assert screen(opened(root), policy="exclude").excluded == ()
    assert checks == ["mine"]
    assert kept_report(first) == check_dataset(first), "what is kept is the report, whole"


def rotten(path: Path, *, at: int) -> None:
    """One bit is another, as on a bad disk: size and time stay."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("at", [8, 100_003], ids=["in what the data set's digest is of", "beyond"])
@pytest.mark.parametrize("kind", ["points", "super_points", "instance_mask", "semantic_mask"])
def test_a_bit_that_a_disk_lost_is_found_by_a_run_and_by_every_check_until_it_is_mended(
    root: Path, kind: str, at: int
) -> None:
    frames = screen(opened(root), policy="refuse").dataset.train
    file = root / kind / f"{BROKEN}.bin"
    status, whole = file.stat(), file.read_bytes()
    rotten(file, at=at)
    with pytest.raises(DitrError, match="not what the data set's check read") as caught:
        frames.frame(frames.ids.index(BROKEN))
    assert caught.value.where == str(file)
    for _ in range(2):
        assert "damaged content" in check_and_keep(opened(root)).broken[BROKEN]
        with pytest.raises(
            DitrError, match=f"damaged content: 1 frame\n.*{BROKEN}: its file of {kind} has other bytes.*, or touch it"
        ):
            screen(opened(root), policy="refuse")
    file.write_bytes(whole)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert check_and_keep(opened(root)).sound
    screen(opened(root), policy="refuse")


def test_a_bit_of_an_image_that_a_disk_lost_is_found(root: Path) -> None:
    frames = screen(opened(root), policy="refuse").dataset.train
    rotten(frames.image_path(0), at=2_000)
    with pytest.raises(DitrError, match="not what the data set's check read"):
        frames.image(0)
    assert "damaged content" in check_and_keep(opened(root)).broken[frames.ids[0]]


def test_a_file_that_somebody_wrote_anew_is_what_runs_read_from_then_on(root: Path) -> None:
    screen(opened(root), policy="refuse")
    rotten(root / "super_points" / f"{BROKEN}.bin", at=100_000)
    os.utime(root / "super_points" / f"{BROKEN}.bin")
    report = check_and_keep(opened(root))
    assert "damaged content" not in {problem.kind for problem in report.problems}


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"of": {}}', "whole, of other types"])
def test_a_kept_report_that_is_damaged_is_made_again(root: Path, checks: list[str], damage: str) -> None:
    screen(opened(root), policy="refuse")
    (file,) = (root.parent / "cache" / "checks").iterdir()
    whole = file.read_text()
    file.write_text(whole.replace('"statistics": {', '"statistics": {"odd": "", ') if "whole" in damage else damage)
    screen(opened(root), policy="refuse")
    assert checks == ["mine", "mine"]
    assert file.read_text() == whole


def test_what_changes_the_outcome_of_the_check_makes_it_anew(
    root: Path, checks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen(opened(root), policy="refuse")
    image = root / "2D/scene9000_00/color/0.jpg"
    os.utime(image, ns=(1, 1))  # written again, of the same size: the digest of the data set does not see it
    screen(opened(root), policy="refuse")
    assert len(checks) == 2
    monkeypatch.setattr(screening, "CHECK_VERSION", 0)
    screen(opened(root), policy="refuse")
    monkeypatch.setattr(screening, "LIMIT_PX", 0.25)
    screen(opened(root), policy="refuse")
    assert len(checks) == 4
    other = open_folder(root, name="mine", intrinsics=replace(opened(root).train.intrinsics, cx=319.6))
    screen(other, policy="refuse")
    assert len(checks) == 5, "the same files under another camera"
    shutil.copytree(root, root.with_name("second"))
    screen(opened(root.with_name("second")), policy="refuse")
    assert len(checks) == 6, "another folder of the same content is another set of files"


def test_refuse_says_what_is_broken_and_what_to_do(root: Path) -> None:
    (root / "points" / f"{BROKEN}.bin").unlink()
    (root / "super_points" / f"{BROKEN}.bin").write_bytes(b"short")
    (root / "points/scene9001_00_0.bin").unlink()
    with pytest.raises(DitrError) as caught:
        screen(opened(root), policy="refuse")
    assert caught.value.code is Code.DATASET
    text = str(caught.value)
    assert "2 of 4 frames cannot be used" in text
    assert "missing points: 2 frames" in text
    assert "truncated super_points: 1 frame\n" in text
    assert f"{root}/super_points/{BROKEN}.bin: 5 bytes" in text
    assert "ditr data check mine" in text
    assert "dataset.broken_frames: exclude" in text


def test_exclude_leaves_out_the_broken_frames_of_both_splits_and_names_them(root: Path) -> None:
    (root / "points" / f"{BROKEN}.bin").unlink()
    (root / "2D/scene9001_00/color/200.jpg").write_bytes(b"no image")
    whole = opened(root)
    screened = screen(whole, policy="exclude")
    assert screened.excluded == (BROKEN, "scene9001_00_200")
    assert screened.dataset.train.ids == ("scene9000_00_200",)
    assert screened.dataset.val.ids == ("scene9001_00_0",)
    assert screened.dataset.digest == whole.digest
    assert screened.dataset.val.frame(0).id == "scene9001_00_0"


def test_a_split_without_frames_is_an_error(root: Path) -> None:
    for path in (root / "points").glob("scene9001*"):
        path.unlink()
    with pytest.raises(DitrError, match="every frame of val is broken"):
        screen(opened(root), policy="exclude")


def test_what_no_run_reads_stops_none(root: Path) -> None:
    shutil.rmtree(root / "pose_centered")
    shutil.rmtree(root / "2D/scene9000_00/depth")
    dataset = opened(root)
    assert not check_dataset(dataset).sound
    assert screen(dataset, policy="refuse").excluded == ()


def test_a_frame_that_the_list_names_and_the_split_lacks_is_refused_or_counted(root: Path) -> None:
    (root / "meta_data").mkdir()
    listed = root / "meta_data/scannetv2_sv_val.txt"
    listed.write_text("scene9001_00_0\nscene9001_00_200\n")
    assert screen(opened(root), policy="refuse").excluded == ()
    listed.write_text("scene9001_00_0\nscene9001_00_200\nscene9001_00_400\n")
    with pytest.raises(DitrError, match="1 of 5 frames cannot be used") as caught:
        screen(opened(root), policy="refuse")
    assert "scene9001_00_400: its points are not on disk" in str(caught.value)
    screened = screen(opened(root), policy="exclude")
    assert screened.excluded == ("scene9001_00_400",)
    assert len(screened.dataset.val) == 2


@pytest.mark.parametrize("policy", ["refuse", "exclude"])
def test_a_wrong_camera_is_refused_with_the_histogram_and_the_right_one(root: Path, policy) -> None:
    wrong = replace(opened(root).train.intrinsics, fx=571.6, fy=571.6)
    with pytest.raises(DitrError, match=r"in 4 of 4 frames points are not within 0\.5 px") as caught:
        screen(open_folder(root, name="mine", intrinsics=wrong), policy=policy)
    text = str(caught.value)
    assert "error px" in text
    assert "2 - 5" in text
    assert "fx 577.871 (577.871 to 577.871), declared 571.6" in text


@pytest.mark.parametrize("policy", ["refuse", "exclude"])
def test_labels_that_a_map_of_classes_lost_are_refused(root: Path, policy: Literal["refuse", "exclude"]) -> None:
    for path in (root / "semantic_mask").iterdir():
        np.zeros(POINT_COUNT, dtype=np.int64).tofile(path)
    with pytest.raises(DitrError) as caught:
        screen(opened(root), policy=policy)
    assert caught.value.code is Code.DATASET
    assert "no frame of val, of 2, has an instance of 100 points or more of one of the classes" in str(caught.value)
    assert "ditr data check mine" in caught.value.fix


@pytest.mark.parametrize("policy", ["refuse", "exclude"])
def test_a_scene_in_both_splits_is_refused(root: Path, policy) -> None:
    train, val = (root / file for file in INFO_FILES.values())
    moved = read_infos(train)
    write_infos(val, replace(read_infos(val), frames=(*read_infos(val).frames, moved.frames[1])))
    write_infos(train, replace(moved, frames=moved.frames[:1]))
    with pytest.raises(DitrError, match="scene in both splits: 1"):
        screen(opened(root), policy=policy)


def test_an_embedded_set_that_is_not_what_was_made_is_refused(tiny_dataset: Dataset, tmp_path: Path) -> None:
    root = tmp_path / "changed"
    shutil.copytree(tiny_dataset.root, root)
    (root / "2D/scene9000_00/depth/0.png").unlink()
    with pytest.raises(DitrError, match="digest: 1"):
        screen(opened(root), policy="exclude")
