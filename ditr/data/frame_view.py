"""One frame to look at: a plain value that evaluation, features and runner fill, and pictures are drawn of."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ditr.data.frame import Frame
from ditr.data.scannet_sv import FrameSet
from ditr.errors import Code, DitrError
from ditr.files import replacing
from ditr.geometry.camera import Intrinsics, project

_ARRAYS = {"image_file", "uv", "uv_valid", "instance_of_point", "predicted", "scores", "partner"}
_OF_MAP = {"of_tokens", "covers_hw"}
_NO_MAP = (0, 0)
"""What a map covers, in a file of features of points, or of none."""
_OF_OLDER_MAP = {"map_colours"}
"""What a stored view holds; older ones do not say what the map covers."""


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """The N points in space, and the camera that they were seen by."""

    xyz: np.ndarray
    """(N, 3) float32 metres in the frame's centred world, +z up: the points as they are stored."""
    rgb: np.ndarray
    """(N, 3) uint8."""
    superpoints: np.ndarray
    """(N,) int64, 0..S-1."""
    intrinsics: Intrinsics
    pose_c2w: np.ndarray
    """(4, 4) float64, camera to the world of ``xyz``; the camera looks along its +z, +y down."""

    @property
    def forward(self) -> np.ndarray:
        """(3,) where the camera looks."""
        return np.asarray(self.pose_c2w[:3, 2])


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """K predicted instances, best first."""

    of_point: np.ndarray
    """(N,) the best prediction that covers each point, -1 without one."""
    scores: np.ndarray
    """(K,) float32, descending."""
    partner: np.ndarray
    """(K,) the ground-truth instance that each prediction is right about, else -1."""


@dataclass(frozen=True, kw_only=True)
class MapColours:
    """2D features in colours: three principal components."""

    of_tokens: np.ndarray
    """(Hp, Wp, 3) uint8; (1, N, 3) where every point has a feature of its own."""
    covers_hw: tuple[int, int] | None
    """Height and width in pixels of what the map covers from the image's top left corner: more where it was padded.
    None where there is no map, but a feature a point."""
    of_points: np.ndarray | None = None
    """(N, 3) uint8 of what each point reads, of use where it has a pixel; None where only tokens were stored."""


@dataclass(frozen=True, kw_only=True)
class FrameView:
    """N points of a frame and what is true of them; what a run says and reads of it, where one was asked."""

    frame_id: str
    image: np.ndarray
    """(H, W, 3) uint8."""
    uv: np.ndarray
    """(N, 2) float32 pixels of the points, u to the right, v down; 0 where not valid."""
    uv_valid: np.ndarray
    """(N,) bool: the point is in the image."""
    instance_of_point: np.ndarray
    """(N,) int64 ground truth, -1 = void; all are where the frame is not labelled."""
    labelled: bool = True
    """Whether it has any ground truth, be it void."""
    cloud: Cloud | None = None
    """None of a stored view."""
    prediction: Prediction | None = None
    features: MapColours | None = None

    def __repr__(self) -> str:
        said = "" if self.prediction is None else f", {len(self.prediction.scores)} predictions"
        return f"FrameView({self.frame_id!r}, {len(self.uv):,} points{said})"

    @property
    def image_hw(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    @property
    def in_space(self) -> Cloud:
        """Of a view that was not stored."""
        assert self.cloud is not None, "a stored view has no points in space"
        return self.cloud

    @property
    def predicted(self) -> Prediction:
        """Of a view that a run has said something of."""
        assert self.prediction is not None, "no run has said anything of this frame"
        return self.prediction


def view_of(frames: FrameSet, index: int) -> FrameView:
    """The frame as the data say it is; every annotated instance is one of the ground truth, none without labels."""
    frame = frames.frame(index)
    instance_ids = np.zeros(len(frame.points), dtype=np.int64) if frame.instance_ids is None else frame.instance_ids
    projection = project(frame.points[:, :3], pose_c2w=frame.pose_c2w, intrinsics=frame.intrinsics)
    return FrameView(
        frame_id=frame.id,
        image=frames.image(index),
        uv=np.where(projection.valid[:, None], projection.uv, 0.0).astype(np.float32),
        uv_valid=projection.valid,
        instance_of_point=instance_ids - 1,
        labelled=frame.instance_ids is not None,
        cloud=Cloud(
            xyz=frame.points[:, :3],
            rgb=np.rint(frame.points[:, 3:]).astype(np.uint8),
            superpoints=frame.superpoints,
            intrinsics=frame.intrinsics,
            pose_c2w=frame.pose_c2w,
        ),
    )


def instance_names(frame: Frame) -> tuple[str, ...]:
    """By instance of ``view_of``, the class of most of its points, or its id where that has no name; without classes
    the instance's own id."""
    if frame.instance_ids is None:
        return ()
    instances = range(1, int(frame.instance_ids.max()) + 1)
    if frame.semantic_ids is None:
        return tuple(f"instance {instance}" for instance in instances)
    ids = (frame.semantic_ids[frame.instance_ids == instance] for instance in instances)
    return tuple(frame.classes.name(int(np.bincount(mine).argmax())) if len(mine) else "?" for mine in ids)


def spread_evenly(count: int, *, total: int) -> frozenset[int]:
    """Indices of ``count`` of ``total`` frames, the middle one of each stretch; all where there are not so many."""
    count = min(count, total)
    return frozenset((2 * part + 1) * total // (2 * count) for part in range(count))


def save_view(view: FrameView, folder: Path, *, image_file: bytes) -> None:
    """Writes ``<frame id>.npz`` into a folder that is made: all but the cloud, and the image's file as it is."""
    features = view.features or MapColours(of_tokens=np.zeros((0, 0, 3), dtype=np.uint8), covers_hw=None)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{view.frame_id}.npz") as beside, beside.open("wb") as file:
        np.savez_compressed(
            file,
            image_file=np.frombuffer(image_file, dtype=np.uint8),
            uv=np.rint(view.uv).astype(np.int16),
            uv_valid=view.uv_valid,
            instance_of_point=view.instance_of_point.astype(np.int16),
            predicted=view.predicted.of_point.astype(np.int16),
            scores=view.predicted.scores.astype(np.float32),
            partner=view.predicted.partner.astype(np.int16),
            of_tokens=features.of_tokens,
            covers_hw=np.array(features.covers_hw or _NO_MAP),
        )


def load_views(folder: Path) -> dict[str, FrameView]:
    """By frame id, what ``save_view`` wrote into the folder; none where there is no such folder.

    What a process that was killed left unfinished is no view. The map of a file that was written before files
    said what it covers is taken to cover the image.

    Raises
    ------
    DitrError: a file is damaged or of another version.
    """
    return {path.stem: _load(path) for path in sorted(folder.glob("[!.]*.npz"))}


def _load(path: Path) -> FrameView:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # numpy leaves a damaged one open
            found = {name: file[name] for name in file.files}
        older = found.keys() == _ARRAYS | _OF_OLDER_MAP
        if not older and found.keys() != _ARRAYS | _OF_MAP:
            raise ValueError(f"it holds {', '.join(found)}")
        if odd := [name for name, array in found.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{odd[0]} is no array")
        image = np.asarray(Image.open(io.BytesIO(found["image_file"].tobytes())).convert("RGB"))
        tokens = found["map_colours" if older else "of_tokens"]
        height, width = image.shape[:2] if older else found["covers_hw"]
        covers = None if (height, width) == _NO_MAP else (int(height), int(width))
        return FrameView(
            frame_id=path.stem,
            image=image,
            uv=found["uv"],
            uv_valid=found["uv_valid"],
            instance_of_point=found["instance_of_point"],
            prediction=Prediction(of_point=found["predicted"], scores=found["scores"], partner=found["partner"]),
            features=MapColours(of_tokens=tokens, covers_hw=covers) if tokens.size else None,
        )
    except Exception as error:  # what numpy, zipfile and PIL raise of damaged bytes is not to be listed
        fix = "evaluate the run again with this version of ditr"
        raise DitrError(f"the kept frame cannot be read: {error}", code=Code.RUN, where=str(path), fix=fix) from error
