from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from ditr.data.classes import THING_NAMES
from ditr.data.info_pickle import FrameInfo, InfoFile, read_infos, read_sound_infos, write_infos
from ditr.errors import DitrError
from tests.reference.esam_infos import RawFrame, dump, scans_v1, scans_v2, single_v1, single_v2, with_clip


def one_frame(frame_id: str = "scene0001_02_400") -> FrameInfo:
    file = f"{frame_id}.bin"
    return FrameInfo(
        scene=frame_id[:12],
        number=frame_id[13:],
        points_file=file,
        superpoints_file=file,
        instances_file=file,
        semantics_file=file,
        image=f"2D/{frame_id[:12]}/color/{frame_id[13:]}.jpg",
        pose_c2w=np.linspace(-1, 1, 16).reshape(4, 4),
        axis_align=np.eye(4) * 3,
    )


def content(pose: object) -> dict[str, object]:
    """A v2 file as the published preparation writes it, spelled out."""
    entry = {
        "lidar_points": {"num_pts_feats": 6, "lidar_path": "scene0001_02_400.bin"},
        "pts_semantic_mask_path": "scene0001_02_400.bin",
        "pts_instance_mask_path": "scene0001_02_400.bin",
        "super_pts_path": "scene0001_02_400.bin",
        "img_path": "2D/scene0001_02/color/400.jpg",
        "pose": pose,
        "axis_align_matrix": np.eye(4).tolist(),
        "instances": [],
    }
    metainfo = {"categories": {"chair": 0}, "dataset": "scannet200_sv", "info_version": "1.1"}
    return {"metainfo": metainfo, "data_list": [entry]}


def test_what_is_written_is_read_again(tmp_path):
    infos = InfoFile(dataset="scannet200_sv", categories={"chair": 0, "table": 1}, frames=(one_frame(),))
    write_infos(tmp_path / "a.pkl", infos)
    back = read_infos(tmp_path / "a.pkl")
    assert back.categories == infos.categories
    assert back.frames[0].id == "scene0001_02_400"
    assert (back.frames[0].scene, back.frames[0].number) == ("scene0001_02", "400")
    assert np.array_equal(back.frames[0].pose_c2w, infos.frames[0].pose_c2w)
    assert np.array_equal(back.frames[0].axis_align, infos.frames[0].axis_align)


def test_a_plain_unpickler_of_numpy_1_finds_every_name_that_is_written(tmp_path):
    write_infos(tmp_path / "a.pkl", InfoFile(dataset="d", categories={}, frames=(one_frame(),)))
    raw = (tmp_path / "a.pkl").read_bytes()
    assert b"numpy._core" not in raw
    assert b"numpy.core.multiarray" in raw
    entry = pickle.loads(raw)["data_list"][0]
    assert set(entry) == set(content(0)["data_list"][0])  # type: ignore[index]
    assert entry["pose"].dtype == np.float64


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_every_protocol_and_both_numpy_paths_are_read(tmp_path, protocol, order, core):
    pose = np.array(np.arange(16.0).reshape(4, 4), order=order)
    raw = pickle.dumps(content(pose), protocol=protocol)
    if protocol < 4:  # names are plain lines there
        raw = raw.replace(b"cnumpy._core.", b"c" + core + b".")
    (tmp_path / "a.pkl").write_bytes(raw)
    assert np.array_equal(read_infos(tmp_path / "a.pkl").frames[0].pose_c2w, pose)


def test_paths_that_windows_wrote_are_read(tmp_path):
    write_infos(tmp_path / "a.pkl", InfoFile(dataset="set", categories={}, frames=(one_frame(),)))
    whole = read_infos(tmp_path / "a.pkl").frames[0]
    entries = pickle.loads((tmp_path / "a.pkl").read_bytes())
    (entry,) = entries["data_list"]
    entry["lidar_points"]["lidar_path"] = f".\\data\\scannet200-sv\\points\\{whole.points_file}"
    entry["img_path"] = ".\\data\\scannet200-sv\\" + whole.image.replace("/", "\\")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(entries))
    assert repr(read_infos(tmp_path / "b.pkl").frames[0]) == repr(whole)
    entry["img_path"] = "2D\\..\\..\\secret.jpg"
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(entries))
    with pytest.raises(DitrError, match="leaves the data set's folder"):
        read_infos(tmp_path / "b.pkl")


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_code_is_refused_and_named(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content(Evil()), protocol=protocol))
    with pytest.raises(DitrError, match=r"asks for (posix|nt)\.system before byte \d+;"):
        read_infos(tmp_path / "a.pkl")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "pose",
    [
        pytest.param(np.ones((4, 4), dtype=bool), id="bool"),
        pytest.param(np.ones((4, 4), dtype=complex), id="complex"),
        pytest.param(np.array([["a"] * 4] * 4, dtype=object), id="objects"),
        pytest.param(np.float64(1.0), id="scalar"),
        pytest.param({1, 2}, id="set"),
        pytest.param("x", id="text"),
    ],
)
def test_anything_but_a_matrix_of_numbers_is_an_error(tmp_path, pose):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content(pose)))
    with pytest.raises(DitrError):
        read_infos(tmp_path / "a.pkl")


def test_damaged_and_foreign_files_say_what_is_wrong(tmp_path):
    path = tmp_path / "a.pkl"
    with pytest.raises(DitrError, match="no such info pickle"):
        read_infos(path)
    path.write_bytes(pickle.dumps(content(np.eye(4)))[:-30])
    with pytest.raises(DitrError, match="cannot be read as a pickle"):
        read_infos(path)
    path.write_bytes(pickle.dumps({1: 2}))
    with pytest.raises(DitrError, match="no 'metainfo'"):
        read_infos(path)
    path.write_bytes(pickle.dumps(content(np.eye(3))))
    with pytest.raises(DitrError, match="4x4"):
        read_infos(path)


def test_a_frame_listed_twice_is_an_error(tmp_path):
    write_infos(tmp_path / "a.pkl", InfoFile(dataset="d", categories={}, frames=(one_frame(), one_frame())))
    with pytest.raises(DitrError, match="scene0001_02_400 is listed 2 times"):
        read_infos(tmp_path / "a.pkl")


def raw_frames() -> list[RawFrame]:
    """Three frames of two scans, in the mixed order of ESAM's lists."""
    rng = np.random.default_rng(0)
    names = (("scene0020_01", 200), ("scene0003_00", 0), ("scene0020_01", 40))
    return [RawFrame(scene, number, rng.normal(size=(4, 4)), rng.normal(size=(4, 4))) for scene, number in names]


ROOTS = ["./data/scannet200-sv", "/home/me/data/scannet200-sv", "data/2D/mine", "."]


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("numpy_1", [True, False])
@pytest.mark.parametrize("form", ["v1", "v2"])
def test_single_frames_as_esam_writes_them(tmp_path, root, numpy_1, form):
    raw = raw_frames()
    written = single_v1(raw, root=root) if form == "v1" else single_v2(raw, root=root, categories={"chair": 0})
    dump(written, tmp_path / "a.pkl", numpy_1=numpy_1)
    infos = read_infos(tmp_path / "a.pkl")
    assert [info.id for info in infos.frames] == ["scene0020_01_200", "scene0003_00_0", "scene0020_01_40"]
    assert infos.dataset == "scannet200_sv"
    assert infos.categories == ({"chair": 0} if form == "v2" else {n: i for i, n in enumerate(THING_NAMES)})
    for info, frame in zip(infos.frames, raw, strict=True):
        files = (info.points_file, info.superpoints_file, info.instances_file, info.semantics_file)
        assert files == (f"{frame.id}.bin",) * 4
        assert info.image == f"2D/{frame.scene}/color/{frame.number}.jpg"
        assert (info.scene, info.number) == (frame.scene, str(frame.number))
        assert np.array_equal(info.pose_c2w, frame.pose)
        assert np.array_equal(info.axis_align, frame.axis_align)
        assert info.features_file is None
        assert info.centred


@pytest.mark.parametrize("form", ["v1", "v2"])
def test_feature_paths_stay_as_the_fork_writes_them(tmp_path, form):
    raw = raw_frames()
    written = single_v1(raw, root=ROOTS[0]) if form == "v1" else single_v2(raw, root=ROOTS[0], categories={})
    dump(with_clip(written), tmp_path / "a_clip.pkl")
    found = [info.features_file for info in read_infos(tmp_path / "a_clip.pkl").frames]
    assert found == ["clip_feat/scene0020_01/200.pt", "clip_feat/scene0003_00/0.pt", None]


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("form", ["v1", "v2"])
def test_the_frames_of_scans(tmp_path, form, clip):
    raw = raw_frames()
    written = scans_v1(raw, root=ROOTS[0]) if form == "v1" else scans_v2(raw, root=ROOTS[0], categories={"chair": 0})
    dump(with_clip(written) if clip else written, tmp_path / "a.pkl")
    infos = read_infos(tmp_path / "a.pkl").frames
    assert [info.id for info in infos] == ["scene0003_00_0", "scene0020_01_40", "scene0020_01_200"]
    by_id = {frame.id: frame for frame in raw}
    for info in infos:
        frame = by_id[info.id]
        files = (info.points_file, info.superpoints_file, info.instances_file, info.semantics_file)
        assert files == (f"{frame.scene}/{frame.number}.bin",) * 4
        assert info.image == f"2D/{frame.scene}/color/{frame.number}.jpg"
        assert np.array_equal(info.pose_c2w, frame.pose)
        assert info.features_file == (f"clip_feat/{frame.scene}/{frame.number}.pt" if clip else None)
        assert not info.centred


@pytest.mark.parametrize(
    ("stored", "file"),
    [
        ("points/scene0003_00/40.bin", "scene0003_00/40.bin"),
        ("points/scene0003_00_40.bin", "scene0003_00_40.bin"),
        ("scene0003_00/40.bin", "scene0003_00/40.bin"),
        ("scene0003_00_40.bin", "scene0003_00_40.bin"),
        ("./data/scannet200-mv/points/scene0003_00/40.bin", "scene0003_00/40.bin"),
        ("points/scene0003_00/scene0003_00_40.bin", "scene0003_00/scene0003_00_40.bin"),
    ],
)
def test_scans_may_lay_out_their_files_in_several_ways(tmp_path, stored, file):
    written = scans_v1([RawFrame("scene0003_00", 40, np.eye(4), np.eye(4))], root="x")
    written[0]["pts_paths"] = [stored]
    dump(written, tmp_path / "a.pkl")
    (info,) = read_infos(tmp_path / "a.pkl").frames
    assert (info.id, info.points_file) == ("scene0003_00_40", file)


def test_lists_of_different_lengths_name_the_scan_and_the_others_are_still_looked_at(tmp_path):
    written = scans_v2(raw_frames(), root="x", categories={})
    del written["data_list"][1]["poses"][0]
    written["data_list"][0]["img_paths"] = ["2D/scene0020_01/color/0.jpg"]
    dump(written, tmp_path / "a.pkl")
    with pytest.raises(DitrError) as caught:
        read_infos(tmp_path / "a.pkl")
    assert "2 mistakes beside 0 sound frames" in caught.value.what
    assert "scan scene0020_01: its lists are of different lengths: 2 pts_paths" in caught.value.what
    assert "1 poses" in caught.value.what
    assert "points/scene0003_00/0.bin: image '2D/scene0020_01/color/0.jpg' is of another frame" in caught.value.what


def break_entry(entry: dict, how: str) -> None:
    if how in entry:
        del entry[how]
    elif how == "short pose":
        entry["pose"] = np.eye(3)
    elif how == "pose of texts":
        entry["pose"] = [["1"] * 4] * 4
    elif how == "ragged":
        entry["axis_align_matrix"] = [[1.0], [1.0, 2.0]]
    elif how == "features":
        entry["lidar_points"]["num_pts_feats"] = 4
    elif how == "outside":
        entry["img_path"] = "../secret.jpg"
    elif how == "absolute":
        entry["super_pts_path"] = "/etc/scene0001_00_0.bin"
    elif how == "name":
        entry["lidar_points"]["lidar_path"] = "office.bin"
    elif how == "other superpoints":
        entry["super_pts_path"] = "scene0001_00_200.bin"
    elif how == "other image":
        entry["img_path"] = entry["img_path"].replace("color/", "color/1")
    elif how == "type":
        entry["pts_instance_mask_path"] = 3


BROKEN = {
    "lidar_points": "neither 'lidar_points' nor 'pts_path'",
    "pose": "has no 'pose'",
    "axis_align_matrix": "has no 'axis_align_matrix'",
    "pts_instance_mask_path": "has 'pts_semantic_mask_path' without 'pts_instance_mask_path'",
    "short pose": "'pose' is not a 4x4 matrix",
    "pose of texts": "'pose' is not a 4x4 matrix",
    "ragged": "'axis_align_matrix' is not a 4x4 matrix",
    "features": "4 features a point",
    "outside": "leaves the data set's folder",
    "absolute": "leaves the data set's folder",
    "name": "not of the form",
    "other superpoints": "'scene0001_00_200.bin' is of another frame",
    "other image": "is of another frame",
    "type": "'pts_instance_mask_path' is a int, not a str",
}


def test_all_broken_entries_are_told_at_once(tmp_path):
    """The first ten of them are shown, each with its place, and what is wrong of each kind."""
    frames = [RawFrame("scene0001_00", 200 * n + 20, np.eye(4), np.eye(4)) for n in range(20)]
    written = single_v2(frames, root="x", categories={})
    for n, how in enumerate(BROKEN):
        break_entry(written["data_list"][n], how)
    dump(written, tmp_path / "a.pkl")
    with pytest.raises(DitrError) as caught:
        read_infos(tmp_path / "a.pkl")
    lines = caught.value.what.splitlines()
    assert lines[0].startswith("14 mistakes beside 6 sound frames")
    assert lines[-1].strip() == "and 4 more"
    assert len(lines) == 12
    for n, (line, message) in enumerate(zip(lines[1:11], list(BROKEN.values())[:10], strict=True)):
        assert line.strip().startswith(f"entry {n}: ")
        assert message in line
    sound, broken = read_sound_infos(tmp_path / "a.pkl")
    assert [info.id for info in sound.frames] == [frame.id for frame in frames[14:]]
    for line, message in zip(broken, BROKEN.values(), strict=True):
        assert message in line


def test_poses_that_are_not_finite_are_no_mistake_of_the_pickle(tmp_path):
    frames = [RawFrame("scene0001_00", 0, np.full((4, 4), -np.inf), np.eye(4))]
    dump(single_v1(frames, root="x"), tmp_path / "a.pkl")
    assert np.isneginf(read_infos(tmp_path / "a.pkl").frames[0].pose_c2w).all()


def test_a_file_without_frames_is_an_error(tmp_path):
    dump(single_v2([], root="x", categories={}), tmp_path / "a.pkl")
    with pytest.raises(DitrError, match="no frames"):
        read_infos(tmp_path / "a.pkl")


def test_what_is_written_is_what_esam_writes(tmp_path):
    """v1 read and written is ESAM's v2, entry by entry, types and keys included, with the image's path for ESAM."""
    raw, categories = raw_frames(), {name: label for label, name in enumerate(THING_NAMES)}
    dump(with_clip(single_v1(raw, root=ROOTS[0])), tmp_path / "v1.pkl")
    write_infos(tmp_path / "v2.pkl", read_infos(tmp_path / "v1.pkl"), image_root=ROOTS[0])
    mine = pickle.loads((tmp_path / "v2.pkl").read_bytes())
    esam = with_clip(single_v2(raw, root=ROOTS[0], categories=categories))
    assert mine["metainfo"] == esam["metainfo"]
    for entry, theirs in zip(mine["data_list"], esam["data_list"], strict=True):
        pose, their_pose = entry.pop("pose"), theirs.pop("pose")
        assert (type(pose), pose.dtype, pose.shape) == (np.ndarray, np.float64, (4, 4))
        assert np.array_equal(pose, their_pose)
        assert entry == theirs
        assert {key: type(value) for key, value in entry.items()} == {k: type(v) for k, v in theirs.items()}


def test_raw_world_frames_are_not_written_as_centred_ones(tmp_path):
    dump(scans_v1(raw_frames(), root="x"), tmp_path / "a.pkl")
    with pytest.raises(DitrError, match="3 frames are not centred"):
        write_infos(tmp_path / "b.pkl", read_infos(tmp_path / "a.pkl"))
    assert not (tmp_path / "b.pkl").exists()
