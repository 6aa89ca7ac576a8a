"""The annotated mesh of a scan, ready to give its labels to points (docs/reference/esam.md, Making a frame 7)."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from ditr.captures.raw_frame import Unusable
from ditr.data.classes import MAX_RAW_ID
from ditr.errors import Code, DitrError
from ditr.scannet.mesh import read_vertices
from ditr.scannet.scene_text import read_axis_alignment, scene_text_path

LABEL_MAP = Path("meta_data") / "scannetv2-labels.combined.tsv"
_BOX_MARGIN_M = 0.05


@dataclass(frozen=True, kw_only=True)
class Scan:
    """V mesh vertices and the instances 1..G that they belong to; 0 is no instance."""

    axis_align: np.ndarray
    """(4, 4) float64, raw world to aligned world."""
    nearest: cKDTree
    """Of the V aligned vertices."""
    instance_of_vertex: np.ndarray
    """(V,) int64: objectId + 1, walls and floors included."""
    raw_id_of_instance: np.ndarray
    """(G + 1,) int64 ScanNet200 id, 0 for instance 0."""
    box_of_instance: np.ndarray
    """(G + 1, 2, 3) aligned lower and upper corner in metres, 5 cm wider than the instance's vertices on every side."""

    def of_world(self, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As ``label``, of (N, 3) points in the raw world.

        Raises
        ------
        Unusable: the alignment gives coordinates that are not finite.
        """
        aligned = xyz @ self.axis_align[:3, :3].T + self.axis_align[:3, 3]
        if not np.isfinite(aligned).all():
            raise Unusable("the aligned coordinates are not finite")
        return self.label(aligned)

    def label(self, aligned_xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Instance and raw ScanNet200 id, (N,) int64 each, of (N, 3) aligned points in metres.

        A point takes the instance of the nearest vertex however far that is, and none outside the instance's box.
        """
        instance = self.instance_of_vertex[self.nearest.query(aligned_xyz)[1]]
        box = self.box_of_instance[instance]
        inside = ((aligned_xyz >= box[:, 0]) & (aligned_xyz <= box[:, 1])).all(axis=1)
        instance = np.where(inside, instance, 0)
        return instance, self.raw_id_of_instance[instance]


@dataclass(frozen=True, kw_only=True)
class ScanLabels:
    """Where a scan's annotation lies."""

    root: Path
    scene: str
    label_map: Mapping[str, int]

    def read(self) -> Scan:
        """Raises DitrError where it is broken."""
        return read_scan(self.root, self.scene, label_map=self.label_map)

    def files(self) -> tuple[Path, ...]:
        """All of the scan's."""
        return tuple(sorted((self.root / "3D" / self.scene).glob("*")))


def read_label_map(path: Path) -> dict[str, int]:
    """Aggregation label -> raw ScanNet200 id, of ScanNet's table of labels."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        ids = {row["raw_category"]: int(row["id"]) for row in rows}
    except FileNotFoundError as error:
        raise _broken(path, "no such table of labels") from error
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, "is no table with the columns raw_category and id") from error
    if not ids or min(ids.values()) < 1 or max(ids.values()) > MAX_RAW_ID:
        raise _broken(path, f"its ids are not within 1 to {MAX_RAW_ID}")
    return ids


def read_scan(root: Path, scene: str, *, label_map: Mapping[str, int]) -> Scan:
    """Mesh, over-segmentation, aggregation and alignment of ``root/3D/<scene>``; ``DitrError`` where they are broken.

    Of two objects that claim one segment the later one has it, as in ScanNet's own reader.
    """
    folder = root / "3D" / scene
    axis_align = read_axis_alignment(scene_text_path(root, scene))
    vertices = read_vertices(folder / f"{scene}_vh_clean_2.ply")
    aligned = vertices @ axis_align[:3, :3].T + axis_align[:3, 3]
    segments = _segments(folder / f"{scene}_vh_clean_2.0.010000.segs.json", vertex_count=len(vertices))
    objects = _objects(folder / f"{scene}.aggregation.json", label_map)
    different, segment_of_vertex = np.unique(segments, return_inverse=True)
    instance_of_segment = np.zeros(len(different), dtype=np.int64)
    raw_ids = np.zeros(max((instance for instance, _, _ in objects), default=0) + 1, dtype=np.int64)
    for instance, raw_id, claimed in objects:
        instance_of_segment[np.isin(different, claimed)] = instance
        raw_ids[instance] = raw_id
    instance_of_vertex = instance_of_segment[segment_of_vertex]
    return Scan(
        axis_align=axis_align,
        nearest=cKDTree(aligned),
        instance_of_vertex=instance_of_vertex,
        raw_id_of_instance=raw_ids,
        box_of_instance=_boxes(aligned, instance_of_vertex, count=len(raw_ids)),
    )


def _boxes(aligned: np.ndarray, instances: np.ndarray, *, count: int) -> np.ndarray:
    boxes = np.empty((count, 2, 3))
    boxes[:, 0], boxes[:, 1] = np.inf, -np.inf
    np.minimum.at(boxes[:, 0], instances, aligned)
    np.maximum.at(boxes[:, 1], instances, aligned)
    boxes[:, 0] -= _BOX_MARGIN_M
    boxes[:, 1] += _BOX_MARGIN_M
    return boxes


def _segments(path: Path, *, vertex_count: int) -> np.ndarray:
    """(V,) int64."""
    try:
        segments = np.asarray(_json(path)["segIndices"], dtype=np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, "has no list 'segIndices' of whole numbers") from error
    if segments.shape != (vertex_count,):
        raise _broken(path, f"{segments.size} segment ids for {vertex_count} vertices of the mesh")
    return segments


def _objects(path: Path, label_map: Mapping[str, int]) -> list[tuple[int, int, list[int]]]:
    """Instance (objectId + 1), raw ScanNet200 id and segments of every object, in the file's order."""
    try:
        objects = [
            (int(group["objectId"]) + 1, str(group["label"]), [int(segment) for segment in group["segments"]])
            for group in _json(path)["segGroups"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, "its 'segGroups' do not all have an objectId, a label and segments") from error
    unknown = sorted({label for _, label, _ in objects} - set(label_map))
    if unknown:
        raise _broken(path, f"labels that the table of labels lacks: {', '.join(map(repr, unknown[:10]))}")
    if any(instance < 1 for instance, _, _ in objects):
        raise _broken(path, "a negative objectId")
    return [(instance, label_map[label], segments) for instance, label, segments in objects]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise _broken(path, "no such file") from error
    except ValueError as error:
        raise _broken(path, f"is no JSON ({error})") from error


def _broken(path: Path, what: str) -> DitrError:
    return DitrError(what, code=Code.DATASET, where=str(path), fix="download this file of ScanNet again")
