"""What each ground-truth instance of an evaluation is like: what results are broken down by."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ditr.data.class_table import SCANNET200, ClassTable
from ditr.errors import Code, DitrError
from ditr.evaluation.class_frequency import FREQUENCIES
from ditr.files import replacing

if TYPE_CHECKING:
    from ditr.data.batch import Sample

INSTANCES_SCHEMA = pa.schema(
    [
        ("frame_id", pa.string()),
        ("instance", pa.int64()),
        ("n_points", pa.int64()),
        ("size_m", pa.float64()),
        ("distance_m", pa.float64()),
        ("valid_ratio", pa.float64()),
        ("class_name", pa.string()),
        ("frequency", pa.string()),
        ("texture_only", pa.bool_()),
        ("best_iou", pa.float64()),
    ]
)
"""instance is the id in a frame's ``instance_of_point``; size_m the diagonal of the box of its points, distance_m the
median of theirs to the camera, valid_ratio the share of them that falls on the image; class_name null where the data do
not say it; frequency head, common or tail, null of a data set with classes of its own; texture_only whether it differs
from what it touches in fine texture alone, null where the data set does not say; best_iou the largest of any prediction
with it."""

Row = dict[str, Any]


def instance_rows(
    sample: Sample, *, classes: ClassTable, best_iou: np.ndarray, texture_ids: Collection[int] | None
) -> Iterator[Row]:
    """One row an instance of a sample that is not augmented, by ``INSTANCES_SCHEMA``.

    Parameters
    ----------
    classes: what the sample's labels are of.
    best_iou: (G,) largest IoU of any prediction with each of the sample's instances.
    texture_ids: instance ids on disk of those that differ from a neighbour in texture only; None where nobody knows.
    """
    points, instance_of_point = sample.xyz.numpy(), sample.targets.instance_of_point.numpy()
    valid = sample.uv_valid.numpy()
    distance = np.linalg.norm(points - sample.camera.numpy(), axis=1)
    facts = zip(sample.targets.ids.tolist(), sample.targets.labels.tolist(), best_iou.tolist(), strict=True)
    for instance, (id_on_disk, label, iou) in enumerate(facts):
        mine = np.flatnonzero(instance_of_point == instance)
        own = points.take(mine, axis=0)
        name = classes.things[label] if label < len(classes.things) else None
        yield {
            "frame_id": sample.frame_id,
            "instance": instance,
            "n_points": len(mine),
            "size_m": float(np.linalg.norm(np.ptp(own, axis=0))),
            "distance_m": float(np.median(distance.take(mine))),
            "valid_ratio": float(valid.take(mine).mean()),
            "class_name": name,
            "frequency": None if name is None or classes.names != SCANNET200.names else FREQUENCIES[name],
            "texture_only": None if texture_ids is None else id_on_disk in texture_ids,
            "best_iou": iou,
        }


def save_instances(path: Path, rows: Sequence[Row]) -> None:
    """Writes one parquet file, whole or not at all."""
    table = pa.Table.from_pylist(list(rows), schema=INSTANCES_SCHEMA)
    with replacing(path) as beside:
        pq.write_table(table, beside, compression="zstd", write_page_checksum=True)


def load_instances(path: Path) -> pa.Table:
    """Reads what ``save_instances`` wrote; a missing, damaged or foreign file is a DitrError."""
    fix = "evaluate the run again with this version of ditr"
    if not path.is_file():
        raise DitrError("there are no facts about the instances", code=Code.RUN, where=str(path), fix=fix)
    try:
        table = pq.read_table(path, memory_map=False, page_checksum_verification=True)
    except Exception as error:  # what pyarrow raises of damaged bytes is not to be listed
        raise DitrError(f"cannot be read: {error}", code=Code.RUN, where=str(path), fix=fix) from error
    if not table.schema.equals(INSTANCES_SCHEMA):
        raise DitrError("has other columns than this version of ditr writes", code=Code.RUN, where=str(path), fix=fix)
    return table
