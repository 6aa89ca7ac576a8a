"""Frames of an evaluation that are kept for pictures, whole in memory, and compact in the run's folder."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ditr.errors import Code, DitrError

if TYPE_CHECKING:
    from ditr.evaluation.instances import Instances

MATCH_IOU = 0.5
"""A prediction above it with a ground-truth instance is right about that one."""
SHOWN_OF_NONE = 8
"""Predictions of a frame in pictures of a run of which none is right about anything."""


@dataclass(frozen=True, kw_only=True)
class KeptFrame:
    """What a picture of a frame needs; ``index`` finds its image in the frame set."""

    index: int
    frame_id: str
    uv: np.ndarray
    """(N, 2) float32 pixels."""
    uv_valid: np.ndarray
    """(N,) bool."""
    instance_of_point: np.ndarray
    """(N,) int64 ground truth, -1 = void."""
    predicted: Instances
    map_colours: np.ndarray | None = None
    """(Hp, Wp, 3) uint8 colours of the frame's 2D features as its points read them; None in a 3D-only run."""


@dataclass(frozen=True, kw_only=True)
class StoredFrame:
    """A kept frame in a run's folder: all that pictures need, without data set, model or features."""

    image_file: np.ndarray
    """(bytes,) uint8: the image file as it is."""
    uv: np.ndarray
    """(N, 2) int16 pixels, rounded."""
    uv_valid: np.ndarray
    """(N,) bool."""
    instance_of_point: np.ndarray
    """(N,) int16 ground truth, -1 = void."""
    predicted: np.ndarray
    """(N,) int16 the best prediction that covers each point, -1 without one."""
    scores: np.ndarray
    """(K,) float32, best first."""
    partner: np.ndarray
    """(K,) int16 the ground-truth instance that each prediction is right about, else -1."""
    map_colours: np.ndarray
    """(Hp, Wp, 3) uint8; (0, 0, 3) in a 3D-only run."""

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        return np.asarray(Image.open(io.BytesIO(self.image_file.tobytes())).convert("RGB"))


def spread_evenly(count: int, *, total: int) -> frozenset[int]:
    """Indices of ``count`` of ``total`` frames, the middle one of each stretch; all where there are not so many."""
    count = min(count, total)
    return frozenset((2 * part + 1) * total // (2 * count) for part in range(count))


def least_shown(scores: np.ndarray, *, best_score: float) -> float:
    """The score from which on pictures show a frame's predictions, by their scores (K,), best first.

    ``best_score`` is that from which on the run's precision and recall are in best balance. It is inf if nothing of the
    run matches anything; the frame's best are shown then.
    """
    return best_score if isfinite(best_score) else float(scores[:SHOWN_OF_NONE].min(initial=1))


def best_of_point(masks: np.ndarray) -> np.ndarray:
    """(N,) index of the first of the masks (K, N) that covers each point; -1 without one."""
    return np.where(masks.any(axis=0), masks.argmax(axis=0), -1) if len(masks) else np.full(masks.shape[1], -1)


def partners(masks: np.ndarray, instance_of_point: np.ndarray) -> np.ndarray:
    """(K,) the ground-truth instance that each mask covers with IoU above ``MATCH_IOU`` (at most one), else -1."""
    truth = instance_of_point == np.arange(instance_of_point.max(initial=-1) + 1)[:, None]
    partner = np.full(len(masks), -1)
    for index, mask in enumerate(masks):
        shared = np.count_nonzero(truth & mask, axis=1)
        iou = shared / np.maximum(np.count_nonzero(truth | mask, axis=1), 1)
        if len(iou) and iou.max() > MATCH_IOU:
            partner[index] = int(iou.argmax())
    return partner


def stored(kept: KeptFrame, *, image_file: bytes) -> StoredFrame:
    """What of a frame goes into the folder."""
    masks = kept.predicted.masks
    no_map = np.zeros((0, 0, 3), dtype=np.uint8)
    return StoredFrame(
        image_file=np.frombuffer(image_file, dtype=np.uint8),
        uv=np.rint(kept.uv).astype(np.int16),
        uv_valid=kept.uv_valid,
        instance_of_point=kept.instance_of_point.astype(np.int16),
        predicted=best_of_point(masks).astype(np.int16),
        scores=kept.predicted.scores.astype(np.float32),
        partner=partners(masks, kept.instance_of_point).astype(np.int16),
        map_colours=no_map if kept.map_colours is None else kept.map_colours,
    )


def save_frame(frame: StoredFrame, path: Path) -> None:
    """Writes one ``.npz``, in a folder that is made, under a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
    np.savez_compressed(temporary, **{field.name: getattr(frame, field.name) for field in fields(frame)})
    os.replace(temporary, path)


def load_frames(folder: Path) -> dict[str, StoredFrame]:
    """By frame id, what ``save_frame`` wrote into the folder; none where there is no such folder.

    Raises
    ------
    DitrError: a file is damaged or of another version.
    """
    return {path.stem: _load(path) for path in sorted(folder.glob("*.npz"))}


def _load(path: Path) -> StoredFrame:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {field.name: arrays[field.name] for field in fields(StoredFrame)}
            if odd := [name for name, array in found.items() if not isinstance(array, np.ndarray)]:
                raise ValueError(f"{odd[0]} is no array")
            return StoredFrame(**found)
    except Exception as error:  # what numpy and zipfile raise of damaged bytes is not to be listed
        fix = "evaluate the run again with this version of ditr"
        raise DitrError(f"the kept frame cannot be read: {error}", code=Code.RUN, where=str(path), fix=fix) from error
