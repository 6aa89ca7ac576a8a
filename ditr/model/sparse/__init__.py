"""The only import of MinkowskiEngine, and the few operations on voxels that the model is written in.

A batch is voxelised once; everything else of that iteration shares its coordinate manager, which lives exactly as long
as the tensors that point to it: nothing here is to be kept on a module (docs/reference/esam.md, Memory outside torch).
"""

from __future__ import annotations

import collections
import collections.abc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ditr.data.batch import Batch


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


class OnVoxels(Protocol):
    """Rows at V voxels of one stride."""

    @property
    def coordinate_map_key(self) -> Any:
        """Names the voxel set within the manager; equal keys mean equal row order."""

    @property
    def coordinate_manager(self) -> Any: ...


class SparseTensor(OnVoxels, Protocol):
    """What the model uses of MinkowskiEngine's sparse tensor: V rows of C channels at V voxels of one stride."""

    @property
    def F(self) -> Tensor:
        """(V, C) features."""

    @property
    def C(self) -> Tensor:
        """(V, 4) int32: batch index, then the voxel's corner in units of the stride-1 voxel."""


@dataclass(frozen=True, kw_only=True)
class VoxelSet:
    """The voxels of one stride of a batch, without any features."""

    coordinate_map_key: Any
    coordinate_manager: Any

    def __len__(self) -> int:
        """V."""
        return int(self.coordinate_manager.size(self.coordinate_map_key))

    @property
    def corners(self) -> Tensor:
        """(V, 4) int32: as ``C`` of a tensor on these voxels."""
        return cast(Tensor, self.coordinate_manager.get_coordinates(self.coordinate_map_key))

    @property
    def stride(self) -> tuple[int, ...]:
        """In stride-1 voxels, of each axis."""
        return tuple(self.coordinate_map_key.get_tensor_stride())


@dataclass(frozen=True, kw_only=True)
class Voxels:
    """A batch of N points in all, as V stride-1 voxels."""

    tensor: SparseTensor
    """(V, 3): mean normalised colour of each voxel's points."""
    voxel_of_point: Tensor
    """(N,) int64 row of each point's voxel, points in the order of the batch."""
    sizes: tuple[int, ...]
    """Points of each sample; they sum to N."""


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


def engine_has_cuda() -> bool:
    """Whether this build of MinkowskiEngine can run on a GPU."""
    return bool(ME.is_cuda_available())


@contextmanager
def one_thread() -> Iterator[None]:
    """Voxelise and run the sparse network's forward pass in here, or gradients on the CPU change from run to run.

    With several threads MinkowskiEngine orders the pairs of a kernel map by which thread came first, and a kernel's
    gradient sums in that order. Maps are made once, in the forward pass; whatever comes later may use all threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
    return Voxels(
        tensor=cast(SparseTensor, tensor),
        voxel_of_point=field.inverse_mapping(tensor.coordinate_map_key).long(),
        sizes=tuple(len(sample.xyz) for sample in batch),
    )


def _manager(device: torch.device) -> Any:
    """A fresh one an iteration; its default would set the process's threads to the number of cores."""
    kind = ME.CoordinateMapType.CUDA if device.type == "cuda" else ME.CoordinateMapType.CPU
    return ME.CoordinateManager(D=3, num_threads=torch.get_num_threads(), coordinate_map_type=kind)


def with_features(tensor: SparseTensor, features: Tensor) -> SparseTensor:
    """The same voxels, in the same order, with (V, C) other features."""
    return cast(
        SparseTensor,
        ME.SparseTensor(
            features,
            coordinate_map_key=tensor.coordinate_map_key,
            coordinate_manager=tensor.coordinate_manager,
        ),
    )


def coarsen(voxels: OnVoxels) -> tuple[VoxelSet, Tensor]:
    """The voxels of twice the stride, which are the backbone's own, and (V,) int64 the one that each voxel lies in."""
    manager = voxels.coordinate_manager
    key = manager.stride(voxels.coordinate_map_key, [2, 2, 2])
    children, parents = manager.stride_map(voxels.coordinate_map_key, key)
    return VoxelSet(coordinate_map_key=key, coordinate_manager=manager), torch.empty_like(parents).index_copy(
        0, children, parents
    )


def require_same_voxels(ours: OnVoxels, theirs: OnVoxels, *, what: str) -> None:
    """Row-wise arithmetic between two tensors is only right on one map of one manager; anything else is a bug here."""
    if ours.coordinate_manager is not theirs.coordinate_manager:
        raise AssertionError(f"{what}: the two tensors have different coordinate managers")
    if ours.coordinate_map_key != theirs.coordinate_map_key:
        keys = f"{ours.coordinate_map_key} and {theirs.coordinate_map_key}"
        raise AssertionError(f"{what}: the two tensors lie on different voxels, {keys}")


def concatenate(first: SparseTensor, second: SparseTensor) -> SparseTensor:
    """Channels of both, which lie on the same voxels."""
    return cast(SparseTensor, ME.cat(first, second))


def convolution(in_channels: int, out_channels: int, *, kernel: int, stride: int = 1) -> nn.Module:
    """Without a bias; its ``kernel`` is (kernel^3, in, out), the first spatial axis fastest; 2-D for kernel 1."""
    with _quiet():
        layer = ME.MinkowskiConvolution(in_channels, out_channels, kernel_size=kernel, stride=stride, dimension=3)
    return cast(nn.Module, layer)


def up_convolution(in_channels: int, out_channels: int) -> nn.Module:
    """From stride 2s back to the existing voxels of stride s."""
    with _quiet():
        layer = ME.MinkowskiConvolutionTranspose(in_channels, out_channels, kernel_size=2, stride=2, dimension=3)
    return cast(nn.Module, layer)


def is_convolution(layer: nn.Module) -> bool:
    """Whether it is one of the two above."""
    return isinstance(layer, ME.MinkowskiConvolution | ME.MinkowskiConvolutionTranspose)


def products(layer: nn.Module, x: OnVoxels, out: OnVoxels) -> int:
    """Vectors that the convolution multiplies by a matrix on its way from ``x`` to ``out``: pairs of its kernel map."""
    convolution = cast(Any, layer)
    if convolution.use_mm:
        return len(VoxelSet(coordinate_map_key=x.coordinate_map_key, coordinate_manager=x.coordinate_manager))
    kernel = convolution.kernel_generator
    pairs = x.coordinate_manager.kernel_map(
        x.coordinate_map_key,
        out.coordinate_map_key,
        stride=kernel.kernel_stride,
        kernel_size=kernel.kernel_size,
        dilation=kernel.kernel_dilation,
        region_type=kernel.region_type,
        region_offset=kernel.region_offsets,
        is_transpose=convolution.is_transpose,
    )
    return sum(rows.shape[1] for rows in pairs.values())


def batch_norm(channels: int, *, momentum: float) -> nn.Module:
    """Over all voxels of the batch."""
    return cast(nn.Module, ME.MinkowskiBatchNorm(channels, momentum=momentum))


def relu() -> nn.Module:
    return cast(nn.Module, ME.MinkowskiReLU(inplace=False))


def max_pool(tensor: SparseTensor) -> SparseTensor:
    """Maximum of the present children of each voxel of twice the stride."""
    with _quiet():
        return cast(SparseTensor, ME.MinkowskiMaxPooling(kernel_size=2, stride=2, dimension=3)(tensor))


def sum_pool(tensor: SparseTensor) -> SparseTensor:
    """Sum of the present children of each voxel of twice the stride."""
    with _quiet():
        return cast(SparseTensor, ME.MinkowskiSumPooling(kernel_size=2, stride=2, dimension=3)(tensor))
