"""What the AP of any subset of frames needs, exactly: how predictions and ground truth overlap, frame by frame."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ditr.errors import Code, DitrError
from ditr.evaluation.instances import Instances
from ditr.files import replacing

FORMAT = b"1"
"""Version of the file's columns."""


@dataclass(frozen=True, kw_only=True)
class FrameMatches:
    """Overlaps of K predictions with G ground-truth instances of one frame; P pairs share at least one point.

    Ground truth of any size is in here: which of it counts is the protocol's decision, not the table's.
    """

    frame_id: str
    gt_sizes: np.ndarray
    """(G,) int64 points; index = the id in ``instance_of_point``."""
    scores: np.ndarray
    """(K,) float64, in the order of the predictions."""
    sizes: np.ndarray
    """(K,) int64 points."""
    void: np.ndarray
    """(K,) int64 points of the prediction that belong to no ground-truth instance."""
    pair_gt: np.ndarray
    """(P,) int64, ascending."""
    pair_pred: np.ndarray
    """(P,) int64, ascending within a ground-truth instance."""
    pair_points: np.ndarray
    """(P,) int64 points in both, at least 1."""

    @property
    def pair_iou(self) -> np.ndarray:
        """(P,) float64 intersection over union, on all points of the frame, void ones included."""
        union = self.gt_sizes[self.pair_gt] + self.sizes[self.pair_pred] - self.pair_points
        return np.asarray(self.pair_points / union)

    def best_iou(self) -> np.ndarray:
        """(G,) float64 largest IoU of any prediction with each ground-truth instance; 0 where none touches it."""
        best = np.zeros(len(self.gt_sizes))
        np.maximum.at(best, self.pair_gt, self.pair_iou)
        return best


class MatchTable:
    """The matches of a run's evaluation, one ``FrameMatches`` a frame, and the protocol's ``min_points``."""

    def __init__(self, frames: Iterable[FrameMatches] = (), *, min_points: int) -> None:
        self.min_points = min_points
        """Smaller ground truth is ignored, smaller predictions are dropped."""
        self._frames = {frame.frame_id: frame for frame in frames}

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def frames(self) -> tuple[FrameMatches, ...]:
        return tuple(self._frames.values())

    @property
    def frame_ids(self) -> tuple[str, ...]:
        return tuple(self._frames)

    def add(self, frame_id: str, instances: Instances, instance_of_point: np.ndarray) -> FrameMatches:
        """Record a frame's predictions against ``instance_of_point`` (N,) int: 0..G-1, or -1 for void."""
        assert frame_id not in self._frames, f"frame {frame_id} was evaluated twice"
        self._frames[frame_id] = match(frame_id, instances=instances, instance_of_point=instance_of_point)
        return self._frames[frame_id]

    def subset(self, frame_ids: Iterable[str]) -> MatchTable:
        """The table of these frames only, in the order given."""
        wanted = tuple(frame_ids)
        missing = [frame_id for frame_id in wanted if frame_id not in self._frames]
        if missing:
            raise DitrError(
                f"{len(missing)} of {len(wanted)} frames were not evaluated, the first is {missing[0]!r}",
                code=Code.RUN,
                where="match table",
                fix=f"choose among the {len(self)} evaluated frames",
            )
        return MatchTable((self._frames[frame_id] for frame_id in wanted), min_points=self.min_points)

    def save(self, path: Path) -> None:
        """Write one parquet file, one row a frame, whole or not at all."""
        rows = [{field.name: getattr(frame, field.name) for field in fields(frame)} for frame in self.frames]
        schema = _SCHEMA.with_metadata({b"ditr.match_table": FORMAT, b"min_points": str(self.min_points).encode()})
        table = pa.Table.from_pylist(rows, schema=schema)
        with replacing(path) as beside:
            pq.write_table(table, beside, compression="zstd", write_page_checksum=True)

    @classmethod
    def load(cls, path: Path) -> MatchTable:
        """Read what ``save`` wrote; a missing, damaged or foreign file is a DitrError."""
        table = _read(path)
        metadata = table.schema.metadata or {}
        min_points = metadata.get(b"min_points", b"")
        told = metadata.get(b"ditr.match_table") == FORMAT and re.fullmatch(rb"\d{1,18}", min_points)
        if not told or not table.schema.equals(_SCHEMA):
            raise _unreadable(path, "is not a match table of this version of ditr")
        if any(_has_nulls(table.column(name)) for name in table.column_names):
            raise _unreadable(path, "has gaps")
        columns = {name: _per_row(table.column(name)) for name in table.column_names}
        frames = [FrameMatches(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
        found = cls(frames, min_points=int(min_points))
        if len(found) < len(frames) or not all(map(_fits_together, frames)):
            raise _unreadable(path, "contradicts itself")
        return found


def match(frame_id: str, *, instances: Instances, instance_of_point: np.ndarray) -> FrameMatches:
    """Count what every prediction (K, N) shares with every instance of ``instance_of_point`` (N,) and with void."""
    points = len(instance_of_point)
    assert instances.masks.shape == (len(instances.scores), points), f"{instances.masks.shape} masks, {points} points"
    gt_bits, pred_bits = _packed(_one_hot(instance_of_point)), _packed(instances.masks)
    shared, sizes = _shared_points(gt_bits, pred_bits).astype(np.int64), _points(pred_bits)
    pair_gt, pair_pred = np.nonzero(shared)
    return FrameMatches(
        frame_id=frame_id,
        gt_sizes=_points(gt_bits),
        scores=instances.scores.astype(np.float64),
        sizes=sizes,
        void=sizes - shared.sum(axis=0),
        pair_gt=pair_gt,
        pair_pred=pair_pred,
        pair_points=shared[pair_gt, pair_pred],
    )


_LISTS = ("gt_sizes", "scores", "sizes", "void", "pair_gt", "pair_pred", "pair_points")
_SCHEMA = pa.schema(
    [("frame_id", pa.string())]
    + [(name, pa.list_(pa.float64() if name == "scores" else pa.int64())) for name in _LISTS]
)


def _one_hot(instance_of_point: np.ndarray) -> np.ndarray:
    """(G, N) bool, in the narrowest integers that hold G; the -1 of void wraps around to their largest."""
    num_gt = int(instance_of_point.max(initial=-1)) + 1
    narrow = np.min_scalar_type(num_gt)
    return np.asarray(instance_of_point.astype(narrow) == np.arange(num_gt, dtype=narrow)[:, None])


def _packed(masks: np.ndarray) -> np.ndarray:
    """(M, N) bool as (M, W) uint64: an eighth of the memory, and whole words to count in."""
    count, points = masks.shape
    packed = np.zeros((count, -(-points // 64)), dtype=np.uint64)
    packed.view(np.uint8)[:, : -(-points // 8)] = np.packbits(masks, axis=1)
    return packed


def _points(bits: np.ndarray) -> np.ndarray:
    """(M,) int64 points of each packed mask."""
    return np.asarray(np.bitwise_count(bits).sum(axis=1, dtype=np.int64))


def _shared_points(gt_bits: np.ndarray, pred_bits: np.ndarray) -> np.ndarray:
    """(G, K) points in both; a row at a time, so that memory stays that of one packed set of predictions.

    All arrays are made once and the sums are as narrow as they can be: this is where evaluation's time goes.
    """
    counts = np.min_scalar_type(64 * gt_bits.shape[1])
    shared = np.empty((len(gt_bits), len(pred_bits)), dtype=counts)
    both, of_word = np.empty_like(pred_bits), np.empty(pred_bits.shape, dtype=np.uint8)
    for row, bits in zip(shared, gt_bits, strict=True):
        np.bitwise_and(pred_bits, bits, out=both)
        np.bitwise_count(both, out=of_word)
        np.add.reduce(of_word, axis=1, dtype=counts, out=row)
    return shared


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise _unreadable(path, "does not exist")
    try:
        table, twice = pq.read_table(path, memory_map=False, page_checksum_verification=True), pq.read_metadata(path)
    except Exception as error:  # what pyarrow raises of damaged bytes is not to be listed
        raise _unreadable(path, f"cannot be read: {error}") from error
    said = dict(table.schema.metadata or {})
    if {name: (twice.metadata or {}).get(name) for name in said} != said:  # twice in the file, under no checksum
        raise _unreadable(path, "is damaged: what it says of itself differs from place to place")
    return table


def _unreadable(path: Path, what: str) -> DitrError:
    return DitrError(f"the match table {what}", code=Code.RUN, where=str(path), fix="evaluate the run again")


def _has_nulls(column: pa.ChunkedArray) -> bool:
    inner = [chunk.values for chunk in column.chunks] if pa.types.is_list(column.type) else []
    return any(part.null_count for part in (column, *inner))


def _fits_together(frame: FrameMatches) -> bool:
    """Whether there is each value of each prediction and pair, and pairs are of what there is."""
    of_predictions = {len(frame.scores), len(frame.sizes), len(frame.void)}
    of_pairs = {len(frame.pair_gt), len(frame.pair_pred), len(frame.pair_points)}
    ends = ((frame.pair_gt, len(frame.gt_sizes)), (frame.pair_pred, len(frame.scores)))
    return len(of_predictions) == len(of_pairs) == 1 and all(
        of.min(initial=0) >= 0 and of.max(initial=-1) < count for of, count in ends
    )


def _per_row(column: pa.ChunkedArray) -> list[str] | list[np.ndarray]:
    """A column's cells; lists as arrays that are views of one buffer."""
    if pa.types.is_string(column.type):
        return list(column.to_pylist())
    array = column.combine_chunks()
    values, offsets = array.values.to_numpy(zero_copy_only=False), array.offsets.to_numpy()
    return [values[start:stop] for start, stop in pairwise(offsets)]
