"""Frames of a folder in the layout of ScanNet200-SV (docs/reference/esam.md, Files of a frame), one reader for all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from ditr.data.class_table import SCANNET200, ClassTable
from ditr.data.frame import Frame
from ditr.data.frame_files import Contents, broken, missing, read_image, read_values
from ditr.data.info_pickle import FrameInfo, InfoFile
from ditr.errors import Code, DitrError
from ditr.files import read_text
from ditr.geometry.camera import Intrinsics
from ditr.geometry.pose import MAX_ROTATION_ERROR

Split = Literal["train", "val"]
POINTS, SUPERPOINTS, INSTANCES, SEMANTICS = "points", "super_points", "instance_mask", "semantic_mask"
IMAGE = "image"
POSES = "pose_centered"
INFO_FILES: dict[Split, str] = {
    "train": "scannet200_sv_oneformer3d_infos_train.pkl",
    "val": "scannet200_sv_oneformer3d_infos_val.pkl",
}
MULTI_VIEW_INFO_FILES: dict[Split, str] = {
    "train": "scannet200_mv_oneformer3d_infos_train.pkl",
    "val": "scannet200_mv_oneformer3d_infos_val.pkl",
}
MANIFEST = "manifest.json"
"""What an embedded data set says of itself."""
POINT_COUNT = 20_000
"""Points a frame as the preparation writes them; the reader takes any number."""
MAX_SHIFT_M = 10_000.0
"""How far a frame may lie from the origin of its scene's world."""
MAX_REACH_M = 1_000.0
"""How far a point may lie from the others of its frame: no depth camera sees a tenth of it."""
MAX_SUPERPOINTS = 2_048
"""Of a frame: time and memory of a step grow with their square. What is made of a room has a few hundred."""
MAX_INSTANCES = 2_048
"""Of a frame: each is held against every query and every point."""
_POINT_FEATURES = 6


class FrameSet:
    """The frames of one split, read when asked for; cheap to pickle, so that loader workers can hold it.

    Every reading method takes the frame's index and raises ``DitrError`` with the path of what is missing or broken.
    What it gives is in the centred world, whose origin is the mean of the frame's points: frames of multi-view infos,
    which are stored in their scan's raw world, are moved there.

    Parameters
    ----------
    root: folder of the data set.
    infos: the split's info file.
    intrinsics: of the colour images of every scene that ``scene_intrinsics`` does not name.
    scene_intrinsics: scene -> those of its images, of the same size.
    classes: what the stored class ids mean.
    digests: of frames by id, those of their files by kind, which a file is held against whenever it is read.
    """

    def __init__(
        self,
        root: Path,
        *,
        infos: InfoFile,
        intrinsics: Intrinsics,
        scene_intrinsics: Mapping[str, Intrinsics] = {},
        classes: ClassTable = SCANNET200,
        digests: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.root = root
        self.infos = infos
        self.intrinsics = intrinsics
        self.scene_intrinsics = dict(scene_intrinsics)
        self.classes = classes
        self.digests = digests or {}
        self.ids = tuple(info.id for info in infos.frames)

    def __len__(self) -> int:
        return len(self.ids)

    def without(self, frame_ids: Collection[str]) -> FrameSet:
        """The frames that are not named, in their order; ids of other sets are passed over."""
        return self.with_infos(info for info in self.infos.frames if info.id not in frame_ids)

    def with_infos(self, infos: Iterable[FrameInfo]) -> FrameSet:
        """Other frames of the same folder."""
        return FrameSet(
            self.root,
            infos=replace(self.infos, frames=tuple(infos)),
            intrinsics=self.intrinsics,
            scene_intrinsics=self.scene_intrinsics,
            classes=self.classes,
            digests=self.digests,
        )

    def with_contents(self, contents: Contents) -> FrameSet:
        """The same frames, whose files are held against what a check found of them."""
        checked = self.with_infos(self.infos.frames)
        checked.digests = {
            frame_id: {kind: facts.digest for kind, facts in contents[frame_id].items()}
            for frame_id in self.ids
            if frame_id in contents
        }
        return checked

    def intrinsics_of(self, index: int) -> Intrinsics:
        """Of the frame's colour image."""
        return self.scene_intrinsics.get(self.infos.frames[index].scene, self.intrinsics)

    def paths(self, index: int) -> dict[str, Path]:
        """The frame's files by kind: ``POINTS``, ``SUPERPOINTS``, ``INSTANCES``, ``SEMANTICS``; no labels, no file."""
        info = self.infos.frames[index]
        files = {
            POINTS: info.points_file,
            SUPERPOINTS: info.superpoints_file,
            INSTANCES: info.instances_file,
            SEMANTICS: info.semantics_file,
        }
        return {kind: self.root / kind / file for kind, file in files.items() if file is not None}

    def path(self, index: int, kind: str) -> Path:
        """The frame's file of a kind that it has."""
        return self.paths(index)[kind]

    def unlabelled(self) -> tuple[str, ...]:
        """Ids of the frames without labels."""
        return tuple(info.id for info in self.infos.frames if info.instances_file is None)

    def frame(self, index: int) -> Frame:
        """Points and labels, of one count, and the camera."""
        info = self.infos.frames[index]
        points, origin = self._centred_points(index)
        superpoints, instance_ids, semantic_ids = (
            self.superpoints(index),
            self.instance_ids(index),
            self.semantic_ids(index),
        )
        for kind, ids in ((SUPERPOINTS, superpoints), (INSTANCES, instance_ids), (SEMANTICS, semantic_ids)):
            if ids is not None and len(ids) != len(points):
                raise broken(self.path(index, kind), f"{len(ids)} ids for {len(points)} points")
        return Frame(
            id=info.id,
            scene=info.scene,
            points=points,
            superpoints=superpoints,
            instance_ids=instance_ids,
            semantic_ids=semantic_ids,
            image_path=self.image_path(index),
            pose_c2w=self._pose_from(index, origin),
            intrinsics=self.intrinsics_of(index),
            classes=self.classes,
        )

    def image_path(self, index: int) -> Path:
        """The file of the frame's colour image."""
        return self.root / self.infos.frames[index].image

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 colour, of the size that the intrinsics are for."""
        path = self.image_path(index)
        image = read_image(path, known=self._known(index, IMAGE))
        intrinsics = self.intrinsics_of(index)
        expected = (intrinsics.height, intrinsics.width, 3)
        if image.shape != expected or image.dtype != np.uint8:
            raise broken(path, f"the image is {image.shape} {image.dtype}, not {expected} uint8 as the intrinsics say")
        return image

    def depth_m(self, index: int) -> np.ndarray | None:
        """(H, W) metres, 0 where nothing was measured; None where the data set has no depth image of the frame."""
        info = self.infos.frames[index]
        path = depth_path(self.root, info.scene, info.number)
        return read_image(path) / 1000.0 if path.exists() else None

    def points(self, index: int) -> np.ndarray:
        """(N, 6) float32: x, y, z in metres in the centred world, r, g, b in 0..255; all finite."""
        return self._centred_points(index)[0]

    def superpoints(self, index: int) -> np.ndarray:
        """(N,) int64, 0..S-1, every one present."""
        path = self.path(index, SUPERPOINTS)
        ids = self._ids(index, SUPERPOINTS)
        highest = ids.max()
        if highest >= len(ids) or not np.bincount(ids).all():
            number = len(np.unique(ids))
            raise broken(path, f"superpoint ids are not contiguous: {number} different ones, the highest {highest}")
        if highest >= MAX_SUPERPOINTS:
            raise broken(path, f"{highest + 1:,} superpoints, allowed are {MAX_SUPERPOINTS:,}")
        return ids

    def instance_ids(self, index: int) -> np.ndarray | None:
        """(N,) int64, 0 = unannotated; None of a frame without labels."""
        path = self.paths(index).get(INSTANCES)
        if path is None:
            return None
        ids = self._ids(index, INSTANCES)
        if ids.max() > MAX_INSTANCES and (number := len(np.unique(ids[ids > 0]))) > MAX_INSTANCES:
            raise broken(path, f"{number:,} instances, allowed are {MAX_INSTANCES:,}")
        return ids

    def semantic_ids(self, index: int) -> np.ndarray | None:
        """(N,) int64 class ids, 0 = unannotated; None of a frame without classes."""
        if SEMANTICS not in self.paths(index):
            return None
        return self._ids(index, SEMANTICS, highest=self.classes.highest_id)

    def world_pose(self, index: int) -> np.ndarray | None:
        """(4, 4) float64, camera to the scene's world, in which its frames agree; None where no file says it.

        Raises
        ------
        DitrError: the file is not 16 finite numbers.
        """
        info = self.infos.frames[index]
        if not info.centred:
            return self._pose_from(index, np.zeros(3))
        path = world_pose_path(self.root, info.scene, info.number)
        try:
            numbers = [float(number) for number in read_text(path).split()]
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise broken(path, f"is no matrix ({error})") from error
        if len(numbers) != 16 or not np.isfinite(numbers).all():
            raise broken(path, "is not 16 finite numbers")
        return np.array(numbers).reshape(4, 4)

    def pose(self, index: int) -> np.ndarray:
        """(4, 4) float64, camera to centred world; finite."""
        centred = self.infos.frames[index].centred
        return self._pose_from(index, np.zeros(3) if centred else self._centred_points(index)[1])

    def shift_to_world(self, index: int) -> np.ndarray:
        """(3,) float64 metres: what takes the frame's centred world to its scene's, in which its frames agree.

        Raises
        ------
        DitrError: nothing says it, or not of this camera.
        """
        info = self.infos.frames[index]
        path = world_pose_path(self.root, info.scene, info.number)
        world, centred = self.world_pose(index), self.pose(index)
        if world is None:
            fix = "frames without poses in one world cannot be merged; predict them without --merge"
            raise DitrError("no such file", code=Code.DATASET, where=str(path), fix=fix)
        if not np.allclose(world[:3, :3], centred[:3, :3], atol=MAX_ROTATION_ERROR):
            raise broken(path, "the camera looks in another direction than that of the frame's centred pose")
        shift = world[:3, 3] - centred[:3, 3]
        if not np.abs(shift).max() < MAX_SHIFT_M:
            raise broken(path, f"the frame lies {np.abs(shift).max():.3g} m from the world's origin")
        return np.asarray(shift)

    def _known(self, index: int, kind: str) -> str | None:
        return self.digests.get(self.ids[index], {}).get(kind)

    def _ids(self, index: int, kind: str, *, highest: int | None = None) -> np.ndarray:
        """(N,) int64 of a file, 0 and above."""
        path, points = self.path(index, kind), self.path(index, POINTS)
        if is_int32(path, points=points):
            raise broken(path, f"as long as {path.stat().st_size // 4:,} int32, one a point; int64 is needed")
        ids = read_values(path, np.dtype(np.int64), known=self._known(index, kind))
        if ids.min() < 0 or (highest is not None and ids.max() > highest):
            bound = f"0 to {highest}" if highest is not None else "0 and above"
            raise broken(path, f"ids from {ids.min()} to {ids.max()}, allowed are {bound}")
        return ids

    def _centred_points(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The points, and where in the stored world their origin lies: (3,) float64."""
        path = self.path(index, POINTS)
        points = read_values(path, np.dtype(np.float32), width=_POINT_FEATURES, known=self._known(index, POINTS))
        if not np.isfinite(points).all():
            raise broken(path, f"{np.sum(~np.isfinite(points).all(axis=1))} points are not finite")
        colours = points[:, 3:].ravel()  # a copy: numpy is slow along short rows
        if colours.min() < 0 or colours.max() > 255:
            raise broken(path, f"colours from {colours.min()} to {colours.max()}, allowed are 0 to 255")
        mean = points[:, :3].mean(axis=0, dtype=np.float64)
        if np.abs(points[:, :3] - mean).max() > MAX_REACH_M:
            far = int(np.sum(np.abs(points[:, :3] - np.median(points[:, :3], axis=0)).max(axis=1) > MAX_REACH_M))
            raise broken(path, f"{far} of {len(points)} points lie more than {MAX_REACH_M:,.0f} m from the others")
        if self.infos.frames[index].centred:
            return points, np.zeros(3)
        points[:, :3] = points[:, :3] - mean  # in float64, then rounded once
        return points, mean

    def _pose_from(self, index: int, origin: np.ndarray) -> np.ndarray:
        """The stored pose with ``origin`` of the stored world as the world's."""
        info = self.infos.frames[index]
        if not np.isfinite(info.pose_c2w).all():
            stored = stored_pose_path(self.root, info.scene, info.number) if info.centred else self.root / info.image
            raise broken(stored, f"the pose of frame {info.id} is not finite; its info pickle holds the same matrix")
        pose = info.pose_c2w.copy()
        pose[:3, 3] -= origin
        return pose


def stored_pose_path(root: Path, scene: str, number: str) -> Path:
    """Where the centred pose of a single-view frame lies, which its info pickle holds too."""
    return root / POSES / scene / f"{number}.npy"


def depth_path(root: Path, scene: str, number: str) -> Path:
    """Where the depth image lies, in millimetres; a folder may lack it."""
    return root / "2D" / scene / "depth" / f"{number}.png"


def world_pose_path(root: Path, scene: str, number: str) -> Path:
    """Where the pose that the centred one was made of lies, in the scene's own world; a folder may lack it."""
    return root / "2D" / scene / "pose" / f"{number}.txt"


def is_int32(path: Path, *, points: Path) -> bool:
    """Whether a file of ids is as long as one of 32 bits a point would be."""
    if not path.is_file() or not points.is_file():
        return False
    size = path.stat().st_size
    return size > 0 and 6 * size == points.stat().st_size


def read_stored_pose(path: Path) -> np.ndarray:
    """(4, 4) float64, camera to centred world; ``DitrError`` if missing or damaged."""
    try:
        pose = np.asarray(np.load(path, allow_pickle=False))
    except FileNotFoundError as error:
        raise missing(path) from error
    except Exception as error:  # what numpy raises of a damaged header is not to be listed
        raise broken(path, f"cannot be read ({error})") from error
    if pose.dtype != np.float64 or pose.shape != (4, 4):
        raise broken(path, f"{pose.shape} {pose.dtype}, not (4, 4) float64")
    return pose
