"""Voxels of MinkowskiEngine: the reference on every device and the way on a CPU. Its only import.

The coordinate manager of a batch lives exactly as long as the voxels that point to it: nothing here is to be kept on a
module (docs/reference/esam.md, Memory outside torch).
"""

from __future__ import annotations

import collections
import collections.abc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from ditr.data.batch import Batch
from ditr.model.sparse.voxels import SparseTensor, Voxels, VoxelSet


def _import_engine() -> Any:
    """MinkowskiEngine 0.5.4 on Python >= 3.10, without the two warnings that importing it always gives."""
    patched = not hasattr(collections, "Sequence")
    if patched:
        collections.Sequence = collections.abc.Sequence  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The MinkowskiEngine was compiled with CPU_ONLY flag")
            warnings.filterwarnings("ignore", message="The environment variable `OMP_NUM_THREADS` not set")
            import MinkowskiEngine  # type: ignore[import-untyped]
    finally:
        if patched:
            del collections.Sequence  # type: ignore[attr-defined]
    return MinkowskiEngine


ME = _import_engine()


def voxelise(batch: Batch, *, voxel_size_m: float) -> Voxels:
    """Floor the coordinates to voxels and average the colours in each (docs/reference/esam.md, Voxels)."""
    corners = [torch.floor(sample.xyz / voxel_size_m) for sample in batch]
    coordinates = torch.cat(
        [nn.functional.pad(corner, (1, 0), value=float(index)) for index, corner in enumerate(corners)]
    )
    field = ME.TensorField(
        features=torch.cat([sample.colour for sample in batch]),
        coordinates=coordinates,
        coordinate_manager=_manager(coordinates.device),
        quantization_mode=ME.SparseTensorQuantizationMode.UNWEIGHTED_AVERAGE,
    )
    # Once: a second sparse() of the same field makes a map with a new random key.
    with _quiet():
        tensor = field.sparse()
    voxels = MinkowskiVoxels(tensor.coordinate_map_key, manager=tensor.coordinate_manager, stride=1)
    return Voxels(
        tensor=SparseTensor(features=tensor.F, voxels=voxels),
        voxel_of_point=field.inverse_mapping(voxels.key).long(),
        sizes=tuple(len(sample.xyz) for sample in batch),
    )


class MinkowskiVoxels(VoxelSet):
    """A coordinate map of a manager."""

    def __init__(self, key: Any, *, manager: Any, stride: int) -> None:
        self.key, self.manager, self.stride = key, manager, stride

    def __len__(self) -> int:
        return int(self.manager.size(self.key))

    @property
    def corners(self) -> Tensor:
        return cast(Tensor, self.manager.get_coordinates(self.key))

    @cached_property
    def coarser(self) -> VoxelSet:
        return MinkowskiVoxels(self.manager.stride(self.key, [2, 2, 2]), manager=self.manager, stride=2 * self.stride)

    @cached_property
    def parents(self) -> Tensor:
        children, parents = self.manager.stride_map(self.key, _of_engine(self.coarser).key)
        return torch.empty_like(parents).index_copy(0, children, parents)

    def convolve_and_norm(
        self,
        features: Tensor,
        kernel: Tensor,
        norm: nn.BatchNorm1d,
        *,
        onto: VoxelSet,
        shortcut: Tensor | None,
        relu: bool,
    ) -> Tensor:
        out: Tensor = norm(self._convolve(features, kernel, onto=_of_engine(onto)))
        if shortcut is not None:
            out = out + shortcut
        return out.relu() if relu else out

    def _convolve(self, features: Tensor, kernel: Tensor, *, onto: MinkowskiVoxels) -> Tensor:
        if kernel.dim() == 2:
            return features.mm(kernel)
        transposed, generator = onto.stride < self.stride, _generator(len(kernel))
        function = ME.MinkowskiConvolutionTransposeFunction if transposed else ME.MinkowskiConvolutionFunction
        with _quiet():
            out: Tensor = function().apply(features, kernel, generator, _mode(), self.key, onto.key, self.manager)
        return out

    def pairs(self, offsets: int, *, onto: VoxelSet) -> int:
        if offsets == 1:
            return len(self)
        generator = _generator(offsets)
        found = self.manager.kernel_map(
            self.key,
            _of_engine(onto).key,
            stride=generator.kernel_stride,
            kernel_size=generator.kernel_size,
            dilation=generator.kernel_dilation,
            region_type=generator.region_type,
            region_offset=generator.region_offsets,
            is_transpose=onto.stride < self.stride,
        )
        return sum(rows.shape[1] for rows in found.values())


def _of_engine(voxels: VoxelSet) -> MinkowskiVoxels:
    assert isinstance(voxels, MinkowskiVoxels), f"{type(voxels).__name__} are another engine's"
    return voxels


@cache
def _generator(offsets: int) -> Any:
    """Between strides for 8 offsets, else around each voxel."""
    size = round(offsets ** (1 / 3))
    return ME.KernelGenerator(kernel_size=size, stride=2 if size == 2 else 1, dilation=1, dimension=3)


@cache
def _mode() -> Any:
    from MinkowskiEngineBackend._C import ConvolutionMode  # type: ignore[import-untyped]

    return ConvolutionMode.DEFAULT


def _manager(device: torch.device) -> Any:
    """A fresh one an iteration; its default would set the process's threads to the number of cores."""
    kind = ME.CoordinateMapType.CUDA if device.type == "cuda" else ME.CoordinateMapType.CPU
    return ME.CoordinateManager(D=3, num_threads=torch.get_num_threads(), coordinate_map_type=kind)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the two warnings that MinkowskiEngine's old ways of calling torch give today."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore",
            message=r"<class '(Minkowski|sparse_matrix_functions\.).*Function'> should not be instantiated",
            category=DeprecationWarning,
        )
        warnings.filterwarnings("ignore", message=r"torch\.sparse\.SparseTensor\(.*is deprecated", category=UserWarning)
        yield
