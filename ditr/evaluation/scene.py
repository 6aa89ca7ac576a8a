"""Instances of consecutive frames merged in the world by geometry: one scene that grows with every frame.

ESAM merges by learned features and boxes; this needs neither training nor a memory of frames. A scene is voxels and the
instances on them, so its size is that of what was seen, however many frames have seen it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix

from ditr.evaluation.instances import Instances
from ditr.evaluation.voxels import box_ious, voxel_ious, voxel_keys

MIN_OVERLAP = 0.25
"""Of an instance of the scene and one of a frame, from which on they can be the same."""
INSIDE = 0.5
"""Mean share of its points from which on a voxel is of an instance."""
IN_VIEW = 0.5
"""Share of an instance's voxels that a frame has to see, so that it could have found the instance."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """V voxels that were seen, and M instances on them; P pairs of the two that some frame found and saw.

    Means run over the frames, of which none is kept.
    """

    keys: np.ndarray
    """(V,) int64, ascending: where the voxels are, see ``voxel_keys``."""
    points: np.ndarray
    """(V,) int64 points seen in each."""
    xyz: np.ndarray
    """(V, 3) float64 mean of these points, metres in the world."""
    rgb: np.ndarray
    """(V, 3) float64 mean of their colours, 0..255."""
    scores: np.ndarray
    """(M,) float64 mean over the frames that found each instance or could have, which count as 0."""
    chances: np.ndarray
    """(M,) int64 how many these are."""
    times: np.ndarray
    """(M,) int64 how many of them found it."""
    pair_voxel: np.ndarray
    """(P,) int64 index of the voxel; pairs are in order of instance and voxel."""
    pair_instance: np.ndarray
    """(P,) int64 index of the instance."""
    pair_share: np.ndarray
    """(P,) float32 share of the voxel's points that are of the instance: the mean over the frames that found the
    instance and saw the voxel."""
    pair_times: np.ndarray
    """(P,) int32 how many these are."""

    def __len__(self) -> int:
        return len(self.scores)

    def members(self) -> csr_matrix:
        """(M, V) bool: the voxels of each instance."""
        inside = self.pair_share >= INSIDE
        where = self.pair_instance[inside], self.pair_voxel[inside]
        return csr_matrix((np.ones(len(where[0]), dtype=bool), where), shape=(len(self), len(self.keys)))

    def instances(self) -> Instances:
        """As evaluation takes them, on voxels: best score first, without those that have no voxel left."""
        members, order = self.members(), np.argsort(-self.scores, kind="stable")
        order = order[np.diff(members.indptr)[order] > 0]
        return Instances(masks=members[order].toarray(), scores=self.scores[order].astype(np.float32))

    def instance_of_voxel(self) -> np.ndarray:
        """(V,) the instance with the best score that has the voxel, -1 = none."""
        found, members = np.full(len(self.keys), -1), self.members()
        for instance in np.argsort(self.scores, kind="stable"):
            found[members[instance].indices] = instance
        return found


def empty_scene() -> Scene:
    """Of no frame."""
    none, numbers, vectors = np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros((0, 3))
    return Scene(
        keys=none,
        points=none,
        xyz=vectors,
        rgb=vectors,
        scores=numbers,
        chances=none,
        times=none,
        pair_voxel=none,
        pair_instance=none,
        pair_share=np.zeros(0, dtype=np.float32),
        pair_times=np.zeros(0, dtype=np.int32),
    )


def merge(scene: Scene, *, xyz: np.ndarray, rgb: np.ndarray, masks: np.ndarray, scores: np.ndarray) -> Scene:
    """The scene with one more frame in it.

    Each of the frame's instances is at most one of the scene's, and the other way round; of all such choices it is the
    one whose ``overlaps`` sum to most. What overlaps none by ``MIN_OVERLAP`` is a new instance.

    Parameters
    ----------
    xyz: (N, 3) metres in the world, the same one for all frames, within ``WORLD_M`` of its origin.
    rgb: (N, 3) in 0..255.
    masks: (K, N) bool; masks may overlap.
    scores: (K,).
    """
    own, of_point, points = np.unique(voxel_keys(xyz), return_inverse=True, return_counts=True)
    counts = [np.bincount(of_point[mask], minlength=len(own)) for mask in masks]
    share = np.reshape(counts, (len(masks), len(own))) / points  # (K, U)
    known = np.isin(own, scene.keys)
    grown = _grown(scene, np.union1d(scene.keys, own))
    seen = np.searchsorted(grown.keys, own)
    instance = _matched(grown, share >= INSIDE, seen=seen, known=known)
    whole = _with_points(grown, seen, of_point, xyz=xyz, rgb=rgb)
    scored = _with_scores(whole, seen, scores=scores, instance=instance)
    return _with_pairs(scored, seen, share=share, instance=instance)


def overlaps(scene: Scene, inside: np.ndarray, *, seen: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(M, K) in 0..1: mean of the IoU of voxels and that of boxes.

    Only what both could have counts, so that a part is compared with a part: of the scene's instances the voxels that
    the frame has seen, of the frame's those that the scene has known.

    Parameters
    ----------
    inside: (K, U) bool: which of the frame's U voxels its instances have.
    seen: (U,) index of each in the scene, which has them all.
    known: (U,) bool: the scene has had them before the frame.
    """
    of_scene, of_frame = scene.members()[:, seen], csr_matrix(inside & known)
    boxes = box_ious(of_scene, of_frame, keys=scene.keys[seen])
    return np.asarray((voxel_ious(of_scene, of_frame) + boxes) / 2)


def _matched(scene: Scene, inside: np.ndarray, *, seen: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(K,) the scene's instance that each of the frame's is, new ones numbered from M on."""
    similar: np.ndarray = overlaps(scene, inside, seen=seen, known=known)
    rows, columns = linear_sum_assignment(np.where(similar >= MIN_OVERLAP, similar, 0), maximize=True)
    same = similar[rows, columns] >= MIN_OVERLAP
    instance = np.full(len(inside), -1)
    instance[columns[same]] = rows[same]
    instance[instance < 0] = len(scene) + np.arange(np.count_nonzero(instance < 0))
    return instance


def _grown(scene: Scene, keys: np.ndarray) -> Scene:
    """With voxels of ``keys``, which hold those of the scene, and nothing in the new ones."""
    place = np.searchsorted(keys, scene.keys)

    def moved(values: np.ndarray) -> np.ndarray:
        wide = np.zeros((len(keys), *values.shape[1:]), dtype=values.dtype)
        wide[place] = values
        return wide

    return replace(
        scene,
        keys=keys,
        points=moved(scene.points),
        xyz=moved(scene.xyz),
        rgb=moved(scene.rgb),
        pair_voxel=place[scene.pair_voxel],
    )


def _with_points(scene: Scene, seen: np.ndarray, of_point: np.ndarray, *, xyz: np.ndarray, rgb: np.ndarray) -> Scene:
    """With the frame's points in the means of the voxels ``seen`` (U,), by the one of these of each point (N,)."""
    count, points = np.bincount(of_point), scene.points.copy()
    points[seen] += count

    def mean(before: np.ndarray, values: np.ndarray) -> np.ndarray:
        sums = [np.bincount(of_point, weights=column) for column in np.asarray(values, dtype=np.float64).T]
        after = before.copy()
        after[seen] += (np.stack(sums, axis=1) - count[:, None] * before[seen]) / points[seen, None]
        return after

    return replace(scene, points=points, xyz=mean(scene.xyz, xyz), rgb=mean(scene.rgb, rgb))


def _with_scores(scene: Scene, seen: np.ndarray, *, scores: np.ndarray, instance: np.ndarray) -> Scene:
    """With the frame's word on the instances that it found, ``instance`` (K,), and on those that it could have."""
    members, new = scene.members(), max(0, int(instance.max(initial=-1)) + 1 - len(scene))
    sizes = np.diff(members.indptr)
    could = np.append((sizes > 0) & (np.diff(members[:, seen].indptr) >= IN_VIEW * sizes), np.ones(new, dtype=bool))
    could[instance] = True
    found, said = np.zeros(len(could), dtype=bool), np.zeros(len(could))
    found[instance], said[instance] = True, scores
    chances, mean = (
        np.append(scene.chances, np.zeros(new, dtype=np.int64)) + could,
        np.append(scene.scores, np.zeros(new)),
    )
    mean[could] += (said[could] - mean[could]) / chances[could]
    times = np.append(scene.times, np.zeros(new, dtype=np.int64)) + found
    return replace(scene, scores=mean, chances=chances, times=times)


def _with_pairs(scene: Scene, seen: np.ndarray, *, share: np.ndarray, instance: np.ndarray) -> Scene:
    """With the frame's shares (K, U) of the voxels ``seen`` (U,) and the instances ``instance`` (K,) that it found."""
    codes = scene.pair_instance * len(scene.keys) + scene.pair_voxel  # ascending, as pairs are
    said, values = (instance[:, None] * len(scene.keys) + seen).ravel(), share.ravel().astype(np.float32)
    place = np.searchsorted(codes, said)
    again = place < len(codes)
    again[again] = codes[place[again]] == said[again]
    pair_times, pair_share = scene.pair_times.copy(), scene.pair_share.copy()
    pair_times[place[again]] += 1
    pair_share[place[again]] += (values[again] - pair_share[place[again]]) / pair_times[place[again]]
    codes = np.append(codes, said[~again])
    order = np.argsort(codes, kind="stable")
    pair_instance, pair_voxel = np.divmod(codes[order], len(scene.keys))
    return replace(
        scene,
        pair_voxel=pair_voxel,
        pair_instance=pair_instance,
        pair_share=np.append(pair_share, values[~again])[order],
        pair_times=np.append(pair_times, np.ones(np.count_nonzero(~again), dtype=np.int32))[order],
    )
