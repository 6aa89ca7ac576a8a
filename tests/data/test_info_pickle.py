from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from ditr.data.info_pickle import FrameInfo, InfoFile, read_infos, write_infos
from ditr.errors import DitrError


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


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


class Setter:
    """Tries to change a function that the reader lends to pickles."""

    def __reduce__(self):
        return np.dtype, ("f8",), {"_function": os.system}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_code_is_refused_and_named(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content(Evil()), protocol=protocol))
    with pytest.raises(DitrError, match=r"asks for (posix|nt)\.system"):
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
        pytest.param(Setter(), id="setter"),
        pytest.param("x", id="text"),
    ],
)
def test_anything_but_a_float64_matrix_is_an_error(tmp_path, pose):
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


def test_a_pickle_cannot_change_what_the_reader_lends_it(tmp_path):
    """BUILD with slot state on the lent ``numpy.dtype`` would swap its function for another."""
    (tmp_path / "a.pkl").write_bytes(b"cnumpy\ndtype\n(N(S'_function'\nS'other'\ndtb.")
    with pytest.raises(DitrError, match="a change of '_function'"):
        read_infos(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content(np.eye(4))))
    assert np.array_equal(read_infos(tmp_path / "a.pkl").frames[0].pose_c2w, np.eye(4))
