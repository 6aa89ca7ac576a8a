"""Folders of which any file may be damaged: a data set, raw scans, captures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from ditr.captures.capture import read_capture
from ditr.captures.formats import FORMATS
from ditr.captures.raw_frame import Unusable
from ditr.data.dataset import Dataset, open_folder
from ditr.data.frame_files import Contents
from ditr.data.info_pickle import FrameInfo, InfoFile, write_infos
from ditr.data.scannet_sv import Split
from ditr.data.scene_intrinsics import intrinsics_text
from ditr.data_check.check import check_dataset
from ditr.errors import DitrError
from ditr.geometry.camera import Intrinsics
from ditr.scannet.scan import read_label_map, read_scan
from ditr.scannet.splits import listed_frames
from tests.damage.kind import Files, Kind
from tests.reference import captures
from tests.reference.scannet_raw import write_meta, write_scan

SMALL = Intrinsics(fx=40.0, fy=40.0, cx=31.5, cy=23.5, width=64, height=48)
SCANS = ("scene0000_00", "scene0001_00")
INFOS: dict[Split, str] = {"train": "train.pkl", "val": "val.pkl"}
POINTS = 500


def files_in(folder: Path, *, suffixes: tuple[str, ...] = ()) -> Files:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return tuple(path for path in found if not suffixes or path.suffix in suffixes)


def write_data_set(folder: Path) -> Files:
    """Frames of some hundred points of a wall with two things, with everything that a folder may hold."""
    infos: dict[Split, list[FrameInfo]] = {"train": [], "val": []}
    for number, (split, scene) in enumerate(zip(infos, SCANS, strict=True)):
        infos[split] = [_write_frame(folder, scene, at, seed=10 * number + at) for at in range(2)]
        (folder / "intrinsics").mkdir(exist_ok=True)
        (folder / f"intrinsics/{scene}.txt").write_text(intrinsics_text(SMALL))
        (folder / "meta_data").mkdir(exist_ok=True)
        (folder / f"meta_data/scannetv2_sv_{split}.txt").write_text("".join(f"{info.id}\n" for info in infos[split]))
        write_infos(folder / INFOS[split], InfoFile(dataset="mine", categories={}, frames=tuple(infos[split])))
    (folder / "prepared.json").write_text('{"settings": {"seed": 0}, "skipped": {}, "failed": {}}')
    return files_in(folder)


def _write_frame(root: Path, scene: str, at: int, *, seed: int) -> FrameInfo:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (SMALL.height, SMALL.width, 3), dtype=np.uint8)
    depth = np.full((SMALL.height, SMALL.width), 2000 + 100 * at, dtype=np.uint16)
    v, u = np.divmod(rng.choice(image.shape[0] * image.shape[1], POINTS, replace=False), SMALL.width)
    z = depth[v, u] / 1000
    camera = np.stack([(u - SMALL.cx) / SMALL.fx * z, (v - SMALL.cy) / SMALL.fy * z, z], axis=1)
    mean, pose = camera.mean(axis=0), np.eye(4)
    pose[:3, 3] = -mean
    thing = (u // 22).astype(np.int64)
    columns = {
        "points": np.concatenate([camera - mean, image[v, u]], axis=1).astype(np.float32),
        "super_points": np.unique(6 * thing + v // 8, return_inverse=True)[1].astype(np.int64),
        "instance_mask": thing,
        "semantic_mask": np.array([0, 2, 4])[thing].astype(np.int64),
    }
    name = f"{scene}_{20 * at}"
    for kind, values in columns.items():
        (root / kind).mkdir(parents=True, exist_ok=True)
        np.ascontiguousarray(values).tofile(root / kind / f"{name}.bin")
    for kind in ("color", "depth", "pose"):
        (root / "2D" / scene / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / f"2D/{scene}/color/{20 * at}.png")
    Image.fromarray(depth).save(root / f"2D/{scene}/depth/{20 * at}.png")
    (root / f"2D/{scene}/pose/{20 * at}.txt").write_text(captures.matrix_text(np.eye(4)))
    (root / "pose_centered" / scene).mkdir(parents=True, exist_ok=True)
    np.save(root / f"pose_centered/{scene}/{20 * at}.npy", pose)
    return FrameInfo(
        scene=scene,
        number=str(20 * at),
        points_file=f"{name}.bin",
        superpoints_file=f"{name}.bin",
        instances_file=f"{name}.bin",
        semantics_file=f"{name}.bin",
        image=f"2D/{scene}/color/{20 * at}.png",
        pose_c2w=pose,
        axis_align=np.eye(4),
    )


def read_data_set(folder: Path, _: Files) -> object:
    """The check's report, and every frame that it calls usable, as a run reads it."""
    opening: list[tuple[str, str]] = []
    dataset = open_folder(
        folder, name="mine", info_files=INFOS, intrinsics=SMALL, report=lambda kind, text: opening.append((kind, text))
    )
    report = check_dataset(dataset, opening=opening)
    for frames in dataset.splits.values():
        for index, frame_id in enumerate(frames.ids):
            if frame_id not in report.broken:
                frames.frame(index)
                frames.image(index)
    return repr(replace(report, contents={}))


def write_checked(folder: Path) -> Files:
    """The files of a data set's frames that runs read, after a check."""
    return tuple(path for path in write_data_set(folder) if path.suffix == ".bin" or path.parent.name == "color")


@cache
def contents(folder: Path) -> Contents:
    """What a check found of the folder's files while they were whole."""
    return check_dataset(_opened(folder)).contents


def read_checked(folder: Path, _: Files) -> object:
    """As a run that began before the damage, or took it for what was checked: size and time may be the same."""
    checked = contents(folder)
    read = []
    for frames in _opened(folder).splits.values():
        frames = frames.with_contents(checked)
        for index in range(len(frames)):
            frame = frames.frame(index)
            arrays = (frame.points, frame.superpoints, frame.instance_ids, frame.semantic_ids, frames.image(index))
            read += [None if array is None else array.tobytes() for array in arrays]
    return read


def _opened(folder: Path) -> Dataset:
    return open_folder(folder, name="mine", info_files=INFOS, intrinsics=SMALL)


def write_scans(folder: Path) -> Files:
    write_meta(folder, train=[SCANS[0]], val=[SCANS[1]])
    for seed, scene in enumerate(SCANS):
        write_scan(folder, scene, seed=seed, numbers=(0,), spacing_m=0.5)
    shutil.rmtree(folder / "masks")
    return (*files_in(folder / "3D"), *files_in(folder / "meta_data"))


def read_scans(folder: Path, _: Files) -> object:
    frames = listed_frames(folder)
    labels = read_label_map(folder / "meta_data/scannetv2-labels.combined.tsv")
    scans = [read_scan(folder, scene, label_map=labels) for scene in SCANS]
    return [
        frames,
        *(plain for scan in scans for plain in (scan.instance_of_vertex.tolist(), scan.axis_align.tolist())),
    ]


@cache
def shots() -> tuple[captures.Take, ...]:
    return tuple(captures.takes(SMALL, count=2))


def write_rgbd(folder: Path) -> None:
    captures.rgbd(folder, shots(), SMALL)


def write_tum(folder: Path) -> None:
    captures.tum(folder, shots(), SMALL)


def write_replica(folder: Path) -> None:
    captures.replica(folder, shots(), SMALL, change=lambda pose: pose)


def write_esam(folder: Path) -> None:
    captures.esam(folder, shots(), SMALL)


def write_record3d(folder: Path) -> None:
    captures.record3d(folder, SMALL, captures.smaller(SMALL, 32, 24), exr=True, count=2)


def write_arkitscenes(folder: Path) -> None:
    captures.arkitscenes(folder, shots(), SMALL, captures.smaller(SMALL, 32, 24))


def capture(name: str, write: Callable[[Path], None]) -> Kind:
    """A capture of the format, read as an import reads it."""

    def write_all(folder: Path) -> Files:
        write(folder / "shot")
        return files_in(folder / "shot")

    def read_all(folder: Path, _: Files) -> object:
        read = []
        for scene in read_capture(folder / "shot", format=FORMATS[name]):
            read.append(repr(asdict(scene.camera)))
            for frame in scene.frames:
                try:
                    pixels = frame.read()
                except (DitrError, Unusable) as error:  # of this frame alone
                    read.append(str(error))
                    continue
                read += [pixels.colour.tobytes().hex(), pixels.depth_m.tobytes().hex(), str(pixels.pose_c2w)]
        return read

    return Kind(write=write_all, read=read_all, guarded=False)


KINDS = {
    "data set": Kind(write=write_data_set, read=read_data_set, guarded=False),
    "data set after a check": Kind(write=write_checked, read=read_checked),
    "raw scan": Kind(write=write_scans, read=read_scans, guarded=False),
    "capture rgbd": capture("rgbd", write_rgbd),
    "capture tum": capture("tum", write_tum),
    "capture replica": capture("replica", write_replica),
    "capture esam": capture("esam", write_esam),
    "capture record3d": capture("record3d", write_record3d),
    "capture arkitscenes": capture("arkitscenes", write_arkitscenes),
}
