"""What the model reads: augmented samples as tensors. Samples keep their own point counts; nothing is padded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ditr.data.block import Block


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Ground truth of one sample: G things on N points and S superpoints."""

    instance_of_point: Tensor
    """(N,) int64, 0..G-1, or -1 for stuff and unannotated points."""
    instance_of_superpoint: Tensor
    """(S,) int64, 0..G-1: more than half of the superpoint's points belong to the instance; -1 where to none."""
    class_of_superpoint: Tensor
    """(S,) int64, 0..199: the class of more than half of the superpoint's points; 200 is "none or no majority"."""
    labels: Tensor
    """(G,) int64 index into the T ``things`` of the data set's table of classes, 0..197 for ScanNet200; T where the
    data do not say the class."""
    ids: Tensor
    """(G,) int64 ids on disk."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One frame of N points."""

    frame_id: str
    seed: int
    """Derived from (seed, epoch, frame); everything random the model does with this sample draws from it."""
    xyz: Tensor
    """(N, 3) float32 metres of the centred world, after every augmentation, the elastic one too: the one set of
    coordinates that the model reads; it voxelises them, pools superpoints with them and gives them to the decoder
    (docs/reference/esam.md, Voxels; Pool)."""
    colour: Tensor
    """(N, 3) float32, normalised."""
    camera: Tensor
    """(3,) float64 metres of the centred world: where the camera stood, whatever the augmentation."""
    superpoints: Tensor
    """(N,) int64, contiguous 0..S-1."""
    num_superpoints: int
    """S, known without asking the device."""
    uv: Tensor
    """(N, 2) float32 pixels of the raw point, from before any augmentation, in the image that the map is of: mirrored
    where that is; 0 where not valid."""
    uv_valid: Tensor
    """(N,) bool: the point reads a 2D feature: it has a pixel, or a feature of its own."""
    map_hw: tuple[int, int] | None
    """Height and width, in pixels of uv, of what the feature map covers from the image's top left corner: the image, or
    more where it was padded. None where every point has a feature of its own and reads that, whatever its pixel."""
    tokens: Tensor | None
    """(C, Hp, Wp) float16 feature map of the frame's image, or (C, 1, N) features of its points, in their order; None
    in a 3D-only run, and until it is computed online."""
    targets: Targets
    image: Tensor | None = None
    """(H, W, 3) uint8 RGB that the map is to be computed of; None where it is computed already, or nobody reads one."""
    depth_ok_ratio: float = math.nan
    """Share of the points in front of the camera; nan where nobody counted."""
    boundary_ok_ratio: float = math.nan
    """Share of the points inside the image; nan where nobody counted."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples."""

    samples: tuple[Sample, ...]
    block: Block[Sample] | None = field(default=None, repr=False, compare=False)
    """What the samples' tensors are views of, where they lie in one piece of memory."""

    @classmethod
    def of(cls, block: Block[Sample]) -> Batch:
        return cls(samples=block.items(), block=block)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @property
    def frame_ids(self) -> tuple[str, ...]:
        return tuple(sample.frame_id for sample in self.samples)

    def to(self, device: torch.device) -> Batch:
        """The batch in one piece of memory there, which takes one copy; itself if it is there."""
        if self.samples[0].xyz.device == device:
            return self
        return Batch.of((self.block or Block.of(self.samples)).to(device))


def as_it_is(batch: Batch) -> Batch:
    """What a batch on the device becomes where no map has to be computed: maps are stored, or nobody reads any."""
    return batch


def collate(samples: list[Sample]) -> Batch:
    return Batch(samples=tuple(samples))
