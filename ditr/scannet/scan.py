"""The annotated mesh of a scan, ready to give its labels to points (docs/reference/esam.md, Making a frame 7)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from ditr.captures.prepared_frame import PointLabels
from ditr.captures.raw_frame import Unusable
from ditr.data.classes import MAX_RAW_ID
from ditr.data_check.pose_mistakes import MISTAKES
from ditr.errors import Code, DitrError
from ditr.files import read_json, read_text
from ditr.scannet.mesh import read_vertices
from ditr.scannet.scene_text import read_axis_alignment, scene_text_path

LABEL_MAP = Path("meta_data") / "scannetv2-labels.combined.tsv"
NEAR_M, LEAST_NEAR = 0.10, 0.3
"""A mesh is made of the scan's frames: of one in its place most points are this near, of another few, by chance."""
_CLEARLY = 0.6
"""Of the points, to be near if what is named is the mistake."""
_TRIED = 2_000
"""Points of a frame that is not in its place."""
_BOX_MARGIN_M = 0.05
_MOST_OBJECTS = 100_000
"""Numbers of objects in a scan: a table is made of all up to the highest."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """V mesh vertices and the instances 1..G that they belong to; 0 is no instance."""

    axis_align: np.ndarray
    """(4, 4) float64, raw world to aligned world."""
    mesh: Path
    """The file of the vertices."""
    nearest: cKDTree
    """Of the V aligned vertices."""
    instance_of_vertex: np.ndarray
    """(V,) int64: objectId + 1, walls and floors included."""
    raw_id_of_instance: np.ndarray
    """(G + 1,) int64 ScanNet200 id, 0 for instance 0."""
    box_of_instance: np.ndarray
    """(G + 1, 2, 3) aligned lower and upper corner in metres, 5 cm wider than the instance's vertices on every side."""

    def of_world(self, xyz: np.ndarray, *, pose_c2w: np.ndarray) -> PointLabels:
        """As ``label``, of (N, 3) points in the raw world, seen by the camera of this pose.

        Raises
        ------
        Unusable: the alignment gives coordinates that are not finite.
        DitrError: most of the points are nowhere near the mesh, which was made of such frames; it says what is likely.
        """
        aligned = self.align(xyz)
        if not np.isfinite(aligned).all():
            raise Unusable("the aligned coordinates are not finite")
        distance_m, vertex = self.nearest.query(aligned)
        median_m = float(np.median(distance_m))
        if (share := near_share(distance_m)) < LEAST_NEAR:
            raise self._misplaced(xyz, pose_c2w, share=share, median_m=median_m)
        instance_ids, semantic_ids = self.label(aligned, vertex)
        return PointLabels(instance_ids=instance_ids, semantic_ids=semantic_ids, distance_m=median_m)

    def align(self, xyz: np.ndarray) -> np.ndarray:
        """(N, 3) of the raw world in the aligned one."""
        return np.asarray(xyz @ self.axis_align[:3, :3].T + self.axis_align[:3, 3])

    def label(self, aligned_xyz: np.ndarray, vertex: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Instance and raw ScanNet200 id, (N,) int64 each, of (N, 3) aligned points in metres and the nearest vertices.

        A point takes the instance of the nearest vertex however far that is, and none outside the instance's box.
        """
        instance = self.instance_of_vertex[vertex]
        box = self.box_of_instance[instance]
        inside = ((aligned_xyz >= box[:, 0]) & (aligned_xyz <= box[:, 1])).all(axis=1)
        instance = np.where(inside, instance, 0)
        return instance, self.raw_id_of_instance[instance]

    def _misplaced(self, xyz: np.ndarray, pose_c2w: np.ndarray, *, share: float, median_m: float) -> DitrError:
        some = xyz[:: max(1, len(xyz) // _TRIED)]
        right = (self.align(mistake.of_world(some, pose_c2w)) for mistake in MISTAKES)
        shares = [near_share(self.nearest.query(xyz)[0]) for xyz in right]
        likely = int(np.argmax(shares))
        what = f"{share:.0%} of the frame's points are within {NEAR_M:g} m of this mesh, half are {median_m:.2g} m away"
        fix = "export depth in millimetres, and poses from camera to world with OpenCV's axes, of this scan"
        if shares[likely] >= max(_CLEARLY, 2 * share):
            what += f"; {shares[likely]:.0%} would be near: {MISTAKES[likely].cause}"
            fix = MISTAKES[likely].files_fix
        return DitrError(what, code=Code.DATASET, where=str(self.mesh), fix=fix)


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


def near_share(distance_m: np.ndarray) -> float:
    """Share of points that are near the mesh, by their (N,) distances."""
    return float(np.mean(distance_m < NEAR_M))


def read_label_map(path: Path) -> dict[str, int]:
    """Aggregation label -> raw ScanNet200 id, of ScanNet's table of labels."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter="\t"))
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
    mesh = folder / f"{scene}_vh_clean_2.ply"
    vertices = read_vertices(mesh)
    aligned = vertices @ axis_align[:3, :3].T + axis_align[:3, 3]
    segs = folder / f"{scene}_vh_clean_2.0.010000.segs.json"
    segments = _segments(segs, vertex_count=len(vertices))
    aggregation = folder / f"{scene}.aggregation.json"
    objects = _objects(aggregation, label_map)
    different, segment_of_vertex = np.unique(segments, return_inverse=True)
    named = {segment for _, _, claimed in objects for segment in claimed}
    if unknown := named - set(different.tolist()):
        what = f"{len(unknown):,} of {len(named):,} segments that it names are not in {segs.name}"
        fix = f"take {aggregation.name} and not that of the mesh of full resolution, _vh_clean.aggregation.json"
        raise DitrError(what, code=Code.DATASET, where=str(aggregation), fix=fix)
    instance_of_segment = np.zeros(len(different), dtype=np.int64)
    raw_ids = np.zeros(max((instance for instance, _, _ in objects), default=0) + 1, dtype=np.int64)
    for instance, raw_id, claimed in objects:
        instance_of_segment[np.isin(different, claimed)] = instance
        raw_ids[instance] = raw_id
    instance_of_vertex = instance_of_segment[segment_of_vertex]
    return Scan(
        axis_align=axis_align,
        mesh=mesh,
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
    except (KeyError, TypeError, ValueError, OverflowError) as error:
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
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _broken(path, "its 'segGroups' do not all have an objectId, a label and segments") from error
    unknown = sorted({label for _, label, _ in objects} - set(label_map))
    if unknown:
        raise _broken(path, f"labels that the table of labels lacks: {', '.join(map(repr, unknown[:10]))}")
    if wrong := [instance - 1 for instance, _, _ in objects if not 0 < instance <= _MOST_OBJECTS]:
        raise _broken(path, f"an objectId {wrong[0]:.4g}, allowed are 0 to {_MOST_OBJECTS - 1:,}")
    return [(instance, label_map[label], segments) for instance, label, segments in objects]


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError as error:
        raise _broken(path, "no such file") from error
    except ValueError as error:
        raise _broken(path, f"is no JSON ({error})") from error


def _broken(path: Path, what: str) -> DitrError:
    return DitrError(what, code=Code.DATASET, where=str(path), fix="download this file of ScanNet again")
