from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from ditr.captures.capture import read_capture
from ditr.captures.convention import Convention
from ditr.captures.formats import FORMATS
from ditr.captures.importing import INFOS, import_capture
from ditr.captures.text_tables import nearest_in_time, read_lines
from ditr.cli.main import app
from ditr.data.dataset import Dataset, open_folder
from ditr.data_check.check import check_dataset
from ditr.errors import DitrError
from tests.reference import captures
from tests.reference.captures import FLIP, Take, camera, smaller, takes

SMALL = camera(160, 120)


@pytest.fixture(scope="module")
def shots() -> list[Take]:
    return takes(SMALL, count=4)


@pytest.fixture(scope="module")
def written(shots: list[Take], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("capture") / "kitchen"
    captures.rgbd(root, shots, SMALL)
    return root


@pytest.fixture
def capture(written: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(written, tmp_path / "kitchen"))


def imported(root: Path, out: Path, *, format: str = "rgbd", **options: object) -> Dataset:
    done = import_capture(root, out, format=FORMATS[format], **{"seed": 0, "workers": 1, **options})  # type: ignore[arg-type]
    return open_folder(out, name="mine", info_files={"val": INFOS}, intrinsics=done.camera)


def files(root: Path) -> dict[str, bytes]:
    """All that is made; when it was made stands in prepared.json alone."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in ("prepared.json", ".prepare.lock")
    }


def test_frames_without_poses_stand_upright_in_their_own_cameras_frame(shots: list[Take], tmp_path: Path) -> None:
    captures.rgbd(tmp_path / "kitchen", shots, SMALL, change=None)
    dataset = imported(tmp_path / "kitchen", tmp_path / "out")
    assert dataset.val.world_pose(0) is None
    pose = dataset.val.pose(1)
    assert pose[:3, 2].tolist() == [0, 1, 0], "the camera looks along +y"
    assert pose[:3, 1].tolist() == [0, 0, -1], "what is down in the image is down in the world"
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    assert check_dataset(dataset).sound


def test_bytes_do_not_depend_on_workers_or_on_where_it_stopped(capture: Path, tmp_path: Path) -> None:
    imported(capture, tmp_path / "one")
    expected = files(tmp_path / "one")
    imported(capture, tmp_path / "two", workers=2)
    assert files(tmp_path / "two") == expected
    (tmp_path / "two/pose_centered/kitchen/1.npy").unlink()
    (tmp_path / "two/points/kitchen_1.bin").write_bytes(b"half")
    (tmp_path / "two/2D/kitchen/depth/.1.png.77.part").write_bytes(b"half")
    (tmp_path / "two/.prepared.json.77.part").write_bytes(b"half")
    again = import_capture(capture, tmp_path / "two", format=FORMATS["rgbd"], seed=0, workers=1)
    assert (again.frames.made, again.frames.kept) == (("kitchen_1",), ("kitchen_0", "kitchen_2", "kitchen_3"))
    assert files(tmp_path / "two") == expected
    other = imported(capture, tmp_path / "other", seed=1)
    assert not np.array_equal(other.val.points(0), open_one(tmp_path / "one").points(0))


def open_one(out: Path):
    return open_folder(out, name="mine", info_files={"val": INFOS}, intrinsics=SMALL).val


def test_one_folder_has_one_way_of_import(capture: Path, tmp_path: Path) -> None:
    imported(capture, tmp_path / "out")
    for options in ({"seed": 3}, {"every": 2}):
        with pytest.raises(DitrError, match="other settings"):
            imported(capture, tmp_path / "out", **options)
    with FileLock(tmp_path / "out/.prepare.lock"), pytest.raises(DitrError, match="another preparation"):
        imported(capture, tmp_path / "out")


def test_every_second_frame_in_the_order_of_the_sequence(shots: list[Take], tmp_path: Path) -> None:
    captures.esam(tmp_path / "hall", shots, SMALL)
    whole = imported(tmp_path / "hall", tmp_path / "whole", format="esam")
    assert whole.ids == ("hall_1", "hall_10", "hall_19", "hall_28")
    assert imported(tmp_path / "hall", tmp_path / "half", format="esam", every=2).ids == ("hall_1", "hall_19")


def test_masks_become_superpoints_also_where_the_image_is_made_smaller(tmp_path: Path) -> None:
    large = camera(800, 600)
    captures.rgbd(tmp_path / "kitchen", takes(large, smaller(large, 160, 120), count=1), large)
    labels = np.zeros((600, 800), dtype=np.uint16)
    labels[:, :300], labels[:, 300:500] = 700, 5
    (tmp_path / "masks/kitchen").mkdir(parents=True)
    Image.fromarray(labels).save(tmp_path / "masks/kitchen/0.png")
    frame = imported(tmp_path / "kitchen", tmp_path / "out", masks=tmp_path / "masks").val.frame(0)
    assert (frame.intrinsics.width, frame.intrinsics.height) == (640, 480)
    centred = (frame.points[:, :3] - frame.pose_c2w[:3, 3]) @ frame.pose_c2w[:3, :3]
    u = frame.intrinsics.fx * centred[:, 0] / centred[:, 2] + frame.intrinsics.cx
    of_mask = [set(frame.superpoints[(u > low) & (u < high)].tolist()) for low, high in ((0, 238), (242, 398))]
    assert [len(groups) for groups in of_mask] == [1, 1]
    assert of_mask[0] != of_mask[1]
    assert 2 < frame.superpoints.max() <= 11, "what no mask covers is clustered"
    with pytest.raises(DitrError, match="no folder of mask images"):
        imported(tmp_path / "kitchen", tmp_path / "other", masks=tmp_path / "none")


def test_scenes_in_folders_become_one_data_set_with_a_camera_each(shots: list[Take], tmp_path: Path) -> None:
    captures.rgbd(tmp_path / "all/a b", shots[:1], SMALL)
    other = camera(160, 120, focal=0.8)
    captures.rgbd(tmp_path / "all/two", takes(other, count=1), other)
    (tmp_path / "all/notes").mkdir()
    dataset = imported(tmp_path / "all", tmp_path / "out")
    assert dataset.ids == ("a-b_0", "two_0")
    assert dataset.val.intrinsics_of(0) == SMALL
    assert dataset.val.intrinsics_of(1) == other
    assert check_dataset(dataset).sound
    large = camera(320, 240)
    captures.rgbd(tmp_path / "all/three", takes(large, count=1), large)
    with pytest.raises(DitrError, match="images of different sizes: 160x120 in two, 320x240 in three"):
        imported(tmp_path / "all", tmp_path / "more")


def test_one_broken_frame_fails_alone_and_unusable_ones_are_left_out_by_name(capture: Path, tmp_path: Path) -> None:
    (capture / "depth/shot_3.png").write_bytes(b"no png")
    (capture / "pose/shot_1.txt").write_text(captures.matrix_text(np.full((4, 4), -np.inf)))
    scaled = np.eye(4)
    scaled[:3, :3] *= 1.1
    (capture / "pose/shot_2.txt").write_text(captures.matrix_text(scaled))
    done = import_capture(capture, tmp_path / "out", format=FORMATS["rgbd"], seed=0, workers=1)
    assert done.frames.made == ("kitchen_0",)
    assert "depth/shot_3.png: the image is damaged" in done.frames.failed["kitchen_3"]
    assert done.frames.skipped["kitchen_1"] == "the pose is not finite"
    assert "the pose is not rigid" in done.frames.skipped["kitchen_2"]


def test_a_saturated_depth_is_none(capture: Path, tmp_path: Path) -> None:
    path = capture / "depth/shot_0.png"
    depth = np.array(Image.open(path))
    depth[:60] = 65535
    Image.fromarray(depth).save(path)
    kept = imported(capture, tmp_path / "out").val.depth_m(0)
    assert kept is not None
    assert not kept[:60].any()
    assert kept[60:].all()


WRONG = {
    "no such folder": ("tum", lambda root: shutil.rmtree(root), "no such folder"),
    "another format": ("tum", lambda root: None, "holds tum: rgb.txt, depth.txt missing"),
    "no depth": ("rgbd", lambda root: (root / "depth/shot_2.png").unlink(), "1 of 4 images have no depth or no pose"),
    "a typing mistake": (
        "rgbd",
        lambda root: (root / "capture.yaml").write_text((root / "capture.yaml").read_text() + "axis: opengl\n"),
        "capture.yaml:3:1: axis: unknown key; did you mean 'axes'",
    ),
    "no camera of depth": (
        "rgbd",
        lambda root: Image.fromarray(np.ones((100, 160), np.uint16)).save(root / "depth/shot_0.png"),
        "depth of 160x100 shows another part",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_understood_is_said_before_anything_is_made(name: str, capture: Path, tmp_path: Path) -> None:
    format, damage, said = WRONG[name]
    damage(capture)
    with pytest.raises(DitrError) as error:
        imported(capture, tmp_path / "out", format=format)
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.r3d").write_bytes(b"PK")
    with pytest.raises(DitrError) as error:
        imported(tmp_path / "x.r3d", tmp_path / "out", format="record3d")
    assert error.value.fix.startswith("unzip it")


def test_tums_cameras_come_from_the_name_of_the_sequence(shots: list[Take], tmp_path: Path) -> None:
    root = tmp_path / "rgbd_dataset_freiburg2_desk"
    captures.tum(root, shots, SMALL)
    (root / "camera.txt").unlink()
    (scene,) = read_capture(root, format=FORMATS["tum"])
    found = scene.frames[0].colour_camera
    assert (found.fx, found.fy, found.cx, found.cy) == (520.9, 521.0, 325.1, 249.7)
    bare = Path(shutil.copytree(root, tmp_path / "desk"))
    with pytest.raises(DitrError, match="nothing says the camera"):
        read_capture(bare, format=FORMATS["tum"])


def test_a_missing_library_is_named_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captures.record3d(tmp_path / "cup", SMALL, SMALL, exr=False, count=1)
    monkeypatch.setitem(__import__("sys").modules, "lzfse", None)
    with pytest.raises(DitrError, match="lzfse, which reads such files, is not installed"):
        imported(tmp_path / "cup", tmp_path / "out", format="record3d")


def test_conventions_undo_each_other() -> None:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_euler("xyz", [0.3, -0.8, 1.1]).as_matrix(), (1.0, -2.0, 0.5)
    stored = np.linalg.inv(pose @ FLIP)
    convention = Convention(direction="world_to_camera", axes="opengl")
    np.testing.assert_allclose(convention.pose_c2w(stored), pose, atol=1e-12)
    for up, axis in (("y", 1), ("-y", 1), ("z", 2)):
        sign = -1 if up == "-y" else 1
        turned = Convention(up=up).pose_c2w(np.eye(4))[:3, :3] @ (sign * np.eye(3)[axis])  # type: ignore[arg-type]
        assert turned.tolist() == [0, 0, 1]
        assert np.linalg.det(Convention(up=up).pose_c2w(np.eye(4))[:3, :3]) == pytest.approx(1)  # type: ignore[arg-type]


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rgb.txt").write_bytes(b"# time file\n1305031102.2 rgb/\x00.png\n")
    with pytest.raises(DitrError, match="bytes that stand in no text") as error:
        read_lines(tmp_path / "rgb.txt")
    assert error.value.where == str(tmp_path / "rgb.txt")


def test_nearest_in_time_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    times, at = rng.uniform(0, 10, 40), rng.uniform(-1, 11, 200)
    found = nearest_in_time(times, at, within_s=0.1)
    for moment, index in zip(at, found, strict=True):
        gaps = np.abs(times - moment)
        assert index == (gaps.argmin() if gaps.min() <= 0.1 else -1)
    assert nearest_in_time(np.array([1.0]), np.array([1.05, 2.0]), within_s=0.1).tolist() == [0, -1]
    assert nearest_in_time(np.array([]), at, within_s=0.1).tolist() == [-1] * 200


def test_a_name_that_is_taken_is_not_written_over(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ditr.toml").write_text("")

    def run(name: str, *more: str):
        return CliRunner().invoke(app, ["data", "import", "rgbd", str(capture), name, "--workers", "1", *more])

    for name in ("synthrooms", "scannet200_sv", "../mine", "a b"):
        assert isinstance(run(name).exception, DitrError)
    assert run("mine").exit_code == 0
    entry = (tmp_path / "registry/datasets/mine.yaml").read_text()
    again = run("mine")
    assert again.exit_code == 0
    assert "0 made, 4 kept" in again.output
    assert (tmp_path / "registry/datasets/mine.yaml").read_text() == entry
    assert run("mine", "--intrinsics", "scene").exit_code == 2


def test_what_changed_in_a_capture_is_made_again_and_said(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames are then those of the capture as it is, and no others were touched."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ditr.toml").write_text("")
    said, shot = (capture / "capture.yaml").read_text(), capture / "pose/shot_1.txt"

    def run() -> str:
        done = CliRunner().invoke(app, ["data", "import", "rgbd", str(capture), "mine", "--workers", "1"])
        assert done.exit_code in (0, 1), done.output
        return done.output

    def changed(text: str) -> str:
        (capture / "capture.yaml").write_text(text)
        return run()

    run()
    assert "0 made, 4 kept" in run()
    turned = changed(said + "poses: world_to_camera\n")
    assert "4 made, 0 kept" in turned
    assert "made again 4: pose changed" in turned
    assert "made again 4: depth per m, pose changed" in changed(said.replace("1000", "500"))
    wide = said.replace(f"fx: {SMALL.fx}", "fx: 150.0")
    assert wide != said
    changed(wide)
    assert "fx: 150.0" in (tmp_path / "registry/datasets/mine.yaml").read_text()
    changed(said)
    pose = shot.read_text()
    shot.write_text((capture / "pose/shot_2.txt").read_text())
    assert "1 made, 3 kept" in run()
    shot.write_text(pose)
    Image.fromarray(np.zeros((120, 160, 3), np.uint8)).save(capture / "color/shot_3.png")
    assert "2 made, 2 kept" in run()
    fresh = tmp_path / "fresh"
    imported(capture, fresh)

    def but_times(root: Path) -> dict[str, bytes]:
        return {name: content for name, content in files(root).items() if not name.startswith("origin")}

    assert but_times(tmp_path / "data/mine") == but_times(fresh)


def test_a_capture_that_lost_its_poses_has_none_after_the_next_import(capture: Path, tmp_path: Path) -> None:
    imported(capture, tmp_path / "out")
    shutil.rmtree(capture / "pose")
    assert imported(capture, tmp_path / "out").val.world_pose(0) is None


def test_what_was_imported_is_removed_by_its_name_and_nothing_else(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ditr.toml").write_text("")
    entry, root = tmp_path / "registry/datasets/mine.yaml", tmp_path / "data/mine"

    def run(*arguments: str):
        return CliRunner().invoke(app, ["data", *arguments])

    def make() -> None:
        done = run("import", "rgbd", str(capture), "mine", "--workers", "1")
        assert "4 made" in done.output

    def refused(name: str) -> str:
        error = run("rm", name, "--yes").exception
        assert isinstance(error, DitrError)
        return error.what

    make()
    shutil.rmtree(root)
    make()
    assert isinstance(run("rm", "mine").exception, DitrError), "nobody can be asked"
    with FileLock(root / ".prepare.lock"):
        assert "an import works" in refused("mine")
    removed = run("rm", "mine", "--yes")
    assert removed.exit_code == 0, removed.output
    assert not root.exists()
    assert not entry.exists()
    assert capture.is_dir()

    make()
    (root / "notes.txt").write_text("mine")
    assert "it stays" in run("rm", "mine", "--yes").output
    assert [path.name for path in root.iterdir()] == ["notes.txt"]
    for name in ("synthrooms", "scannet200_sv"):
        assert "was not imported" in refused(name)
    entry.write_text(
        "kind: folder\npath: mine\ninfos: {val: val.pkl}\n"
        "intrinsics: {fx: 1, fy: 1, cx: 1, cy: 1, width: 8, height: 8}\n"
    )
    assert "was not imported" in refused("mine")
    entry.write_text(entry.read_text() + "imported: true\n")
    assert "no import made them" in refused("mine")
    assert (root / "notes.txt").is_file()


@pytest.mark.parametrize("text", ["525 525 319.5\n", "a b c d\n", "# nothing yet\n", "1 2 3 4\n5 6 7 8\n"])
def test_a_camera_that_the_user_wrote_is_corrected_not_exported_again(
    text: str, shots: list[Take], tmp_path: Path
) -> None:
    captures.tum(tmp_path / "desk", shots, SMALL)
    (tmp_path / "desk/camera.txt").write_text(text)
    with pytest.raises(DitrError) as error:
        read_capture(tmp_path / "desk", format=FORMATS["tum"])
    assert error.value.fix.startswith("write fx fy cx cy")


def test_data_ls_says_how_many_scenes_and_frames_were_imported(
    shots: list[Take], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ditr.toml").write_text("")
    for name, count in (("a_b", 2), ("c", 1)):
        captures.rgbd(tmp_path / "all" / name, shots[:count], SMALL)
    CliRunner().invoke(app, ["data", "import", "rgbd", str(tmp_path / "all"), "mine", "--workers", "1"])
    listed = CliRunner().invoke(app, ["data", "ls"]).output
    (row,) = (line.split() for line in listed.splitlines() if line.startswith("mine "))
    assert " ".join(row[2:6]) == "2x1 to 2 here"
