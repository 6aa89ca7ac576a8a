"""Frames merged to a scene, written down step by step: dictionaries, loops, and all that was ever said is remembered.

Nothing is shared with ditr.evaluation.scene; every mean is taken at the end, of a list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

VOXEL_M = 0.05
Voxel = tuple[int, int, int]


@dataclass
class LoopInstance:
    said: dict[Voxel, list[float]] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    """Of every frame that found it or could have; 0 of the others among these."""
    times: int = 0

    def voxels(self) -> set[Voxel]:
        return {voxel for voxel, shares in self.said.items() if sum(shares) / len(shares) >= 0.5}


@dataclass
class LoopScene:
    points: dict[Voxel, list[tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    instances: list[LoopInstance] = field(default_factory=list)

    def add(self, xyz: np.ndarray, rgb: np.ndarray, masks: np.ndarray, scores: np.ndarray) -> None:
        at = [tuple(math.floor(value / VOXEL_M) for value in point) for point in xyz]
        seen, known = set(at), set(self.points)
        shares = [
            {voxel: float(np.mean([mask[i] for i in range(len(at)) if at[i] == voxel])) for voxel in seen}
            for mask in masks
        ]
        inside = [{voxel for voxel, share in one.items() if share >= 0.5} for one in shares]
        partner = self._partners([one & known for one in inside], seen)
        before = [one.voxels() for one in self.instances]
        could = [bool(voxels) and len(voxels & seen) >= 0.5 * len(voxels) for voxels in before]
        for k in range(len(masks)):
            if k not in partner:
                self.instances.append(LoopInstance())
                partner[k] = len(self.instances) - 1
        of_instance = {m: k for k, m in partner.items()}
        for m, instance in enumerate(self.instances):
            if m in of_instance:
                k = of_instance[m]
                instance.times += 1
                instance.scores.append(float(scores[k]))
                for voxel, share in shares[k].items():
                    instance.said.setdefault(voxel, []).append(share)
            elif could[m]:
                instance.scores.append(0.0)
        for i, voxel in enumerate(at):
            self.points.setdefault(voxel, []).append((xyz[i], rgb[i]))

    def _partners(self, frame: list[set[Voxel]], seen: set[Voxel]) -> dict[int, int]:
        """The scene's instance of each of the frame's that has one: the best of all choices, tried one by one."""
        scene = [one.voxels() & seen for one in self.instances]
        similar = [[_overlap(a, b) for b in frame] for a in scene]
        best: tuple[float, dict[int, int]] = (0.0, {})
        slots = [*range(len(scene)), *[None] * len(frame)]
        for choice in set(permutations(slots, len(frame))):
            pairs = {k: m for k, m in enumerate(choice) if m is not None and similar[m][k] >= 0.25}
            total = sum(similar[m][k] for k, m in pairs.items())
            if total > best[0]:
                best = total, pairs
        return best[1]


def _overlap(a: set[Voxel], b: set[Voxel]) -> float:
    voxels = len(a & b) / len(a | b) if a | b else 0.0
    return (voxels + _box_overlap(a, b)) / 2


def _box_overlap(a: set[Voxel], b: set[Voxel]) -> float:
    if not a or not b:
        return 0.0
    shared = volume_a = volume_b = 1
    for axis in range(3):
        low_a, high_a = min(v[axis] for v in a), max(v[axis] for v in a) + 1
        low_b, high_b = min(v[axis] for v in b), max(v[axis] for v in b) + 1
        shared *= max(0, min(high_a, high_b) - max(low_a, low_b))
        volume_a *= high_a - low_a
        volume_b *= high_b - low_b
    return shared / (volume_a + volume_b - shared)
