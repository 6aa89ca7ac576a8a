"""Features without information: what a fusion gains with them, it does not gain from what an image shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ditr.data.frame import scene_of
from ditr.errors import Code, DitrError
from ditr.features.store import Maps
from ditr.seeds import derive_seed
from ditr.spec.models import Control


def map_reader(maps: Maps, *, control: Control, split: Sequence[str]) -> Callable[[str], Tensor]:
    """Reads a frame's map (C, Hp, Wp) float16 by its id, as the control has it; can be carried to loader workers.

    Parameters
    ----------
    split: ids of all frames of the frame's split, among which maps are exchanged.

    Raises
    ------
    DitrError: one scene has more than half of the split's frames, so that some would keep a map of their own scene.
    """
    if control == "none":
        return maps.read
    if control == "zero":
        return ZeroMaps(maps.shape)
    if control == "mean":
        return OneMap(_mean(maps, split))
    return OtherMaps(maps, partners(split))


@dataclass(frozen=True)
class ZeroMaps:
    """Gives zeros for every frame."""

    shape: tuple[int, int, int]

    def __call__(self, frame_id: str) -> Tensor:
        return torch.zeros(self.shape, dtype=torch.float16)


@dataclass(frozen=True)
class OneMap:
    """Gives every frame the same map."""

    tokens: Tensor

    def __call__(self, frame_id: str) -> Tensor:
        return self.tokens


@dataclass(frozen=True)
class OtherMaps:
    """Gives every frame the map of its partner."""

    maps: Maps
    partner: Mapping[str, str]

    def __call__(self, frame_id: str) -> Tensor:
        return self.maps.read(self.partner[frame_id])


def _mean(maps: Maps, split: Sequence[str]) -> Tensor:
    """(C, Hp, Wp) float16 mean of the frames' maps; of features of points, (C, 1, 1) mean of all."""
    total = torch.zeros(maps.shape, dtype=torch.float64)
    for frame_id in split:
        tokens = maps.read(frame_id).double()
        total += tokens if maps.shape[2] > 1 else tokens.mean(dim=2, keepdim=True)
    return (total / len(split)).half()


def partners(frame_ids: Sequence[str]) -> dict[str, str]:
    """For each frame one of another scene; every frame is the partner of one. The same in every run, whatever its seed.

    Frames stand scene by scene, in random order, and each takes the one that lies as many places ahead as the largest
    scene has frames: that one is of another scene as long as no scene has more than half of all frames.
    """
    rng = np.random.default_rng(derive_seed("shuffled features"))
    scenes: dict[str, list[str]] = defaultdict(list)
    for frame_id in sorted(frame_ids):
        scenes[scene_of(frame_id)].append(frame_id)
    names = list(scenes)
    order = [frame_id for at in rng.permutation(len(names)) for frame_id in rng.permutation(scenes[names[at]]).tolist()]
    ahead = max(map(len, scenes.values()))
    if 2 * ahead > len(order):
        raise DitrError(
            f"features cannot be shuffled: one scene has {ahead} of the split's {len(order)} frames, so that some would"
            " read a map of their own scene",
            code=Code.FEATURES,
            where="features.control",
            fix="take a data set with more scenes",
        )
    return {frame_id: order[(at + ahead) % len(order)] for at, frame_id in enumerate(order)}
