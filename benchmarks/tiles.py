"""Find the fastest tiles of the card that this runs on, for ``ditr/model/sparse/triton/tiles.json``.

    python -m benchmarks.tiles [--batch 16] [--processes 14] [--out tiles.json]

Every product of the networks of specs/scannet200_sv and specs/study, forward, backward and the weights' gradient, is
timed on the voxels of generated rooms with each tile that may suit it. Candidates are compiled in processes first.
The lines of other cards stay as they are.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.frames import generated_batch
from ditr.data.batch import Batch
from ditr.model.res16unet import Res16UNet
from ditr.model.sparse import BatchNorm, Convolved, voxelise
from ditr.model.sparse.choice import engine_lack
from ditr.model.sparse.triton import convolution
from ditr.model.sparse.triton.maps import ConvolutionMap
from ditr.model.sparse.triton.tiles import (
    GatherTile,
    GradientTile,
    name_of,
    safe_gather_tile,
    safe_gradient_tile,
    width_of,
)
from ditr.spec.load import load_spec
from ditr.spec.models import BackboneSpec
from ditr.spec.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "ditr" / "model" / "sparse" / "triton" / "tiles.json"
SPECS = (ROOT / "specs" / "scannet200_sv" / "baseline.yaml", ROOT / "specs" / "study" / "baseline.yaml")
VOXEL_SIZE_M = 0.02
REPEATS = 8
DTYPES = (torch.float16, torch.float32)


@dataclass(frozen=True)
class Shape:
    """One product: which offsets, channels, and of which convolution of which stride."""

    offsets: int
    channels_in: int
    channels_out: int
    stride: int
    onto: int


@dataclass(frozen=True)
class Task:
    """A product with one tile."""

    shape: Shape
    backward: bool
    dtype: torch.dtype
    tile: GatherTile | GradientTile

    @property
    def name(self) -> str:
        shape = self.shape
        channels = (shape.channels_in, shape.channels_out)
        if isinstance(self.tile, GradientTile):
            return name_of("gradient", shape.offsets, *channels, dtype=self.dtype)
        return name_of("gather", shape.offsets, *(channels[::-1] if self.backward else channels), dtype=self.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--processes", type=int, default=14)
    parser.add_argument("--out", type=Path, default=TABLE)
    arguments = parser.parse_args()
    if lack := engine_lack("triton", device=torch.device("cuda" if torch.cuda.is_available() else "cpu")):
        parser.error(f"tiles are of Triton's kernels, which cannot run here: {lack.what}")
    batch = generated_batch(arguments.batch)
    tasks = list(_tasks(batch))
    shares = [tasks[first :: arguments.processes] for first in range(arguments.processes)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        fits = [fit for share in pool.map(_compile, shares, [batch] * len(shares)) for fit in share]
    tasks = [task for share in shares for task in share]
    runner = _Runner(batch)
    best: dict[str, tuple[float, Task]] = {}
    for task, fitting in zip(tasks, fits, strict=True):
        if fitting:
            ms = runner.time(task)
            if task.name not in best or ms < best[task.name][0]:
                best[task.name] = (ms, task)
    major, minor = torch.cuda.get_device_capability()
    table = json.loads(TABLE.read_text())
    table[f"sm_{major}{minor}"] = {name: asdict(task.tile) for name, (_, task) in sorted(best.items())}
    arguments.out.write_text(_as_lines(table))
    for name, (ms, task) in sorted(best.items()):
        print(f"{name:40} {ms:8.3f} ms  {task.tile}")


def _tasks(batch: Batch) -> Iterator[Task]:
    done = set()
    for shape, dtype in product(_shapes(batch), DTYPES):
        if shape.offsets == 125:
            continue  # the stem's tile is fixed
        channels = (shape.channels_in, shape.channels_out)
        tasks = [Task(shape, False, dtype, tile) for tile in _gather_tiles(*channels, dtype=dtype)]
        tasks += [Task(shape, True, dtype, tile) for tile in _gather_tiles(*channels[::-1], dtype=dtype)]
        tasks += [Task(shape, False, dtype, tile) for tile in _gradient_tiles(*channels, dtype=dtype)]
        for task in tasks:
            if (task.name, task.tile, shape.stride) not in done:
                done.add((task.name, task.tile, shape.stride))
                yield task


def _shapes(batch: Batch) -> list[Shape]:
    """Of both networks; where equal channels lie at two strides, the finer one, which takes longer."""
    found: dict[tuple[int, int, int], Shape] = {}

    def look(_norm: object, inputs: tuple[Convolved], _out: object) -> None:
        (convolved,) = inputs
        *offsets, channels_in, channels_out = convolved.kernel.shape
        key = (offsets[0] if offsets else 1, channels_in, channels_out)
        shape = Shape(*key, convolved.of.voxels.stride, convolved.onto.stride)
        if key not in found or shape.stride < found[key].stride:
            found[key] = shape

    tensor = voxelise(batch.to(torch.device("cuda")), voxel_size_m=VOXEL_SIZE_M, engine="triton").tensor
    for spec in SPECS:
        backbone: BackboneSpec = load_spec(spec, registry=Registry()).spec.model.backbone
        network = Res16UNet(backbone).cuda().eval()
        for norm in network.modules():
            if isinstance(norm, BatchNorm):
                norm.register_forward_hook(look)
        with torch.no_grad():
            network(tensor)
    return list(found.values())


def _gather_tiles(channels_in: int, channels_out: int, *, dtype: torch.dtype) -> list[GatherTile]:
    safe = safe_gather_tile(channels_in, channels_out, dtype=dtype)
    columns = min(width_of(channels_out), 128)
    deep = 64 if channels_in >= 64 else 32
    if dtype == torch.float32:
        sizes = [(64, min(columns, 64), 32, 4, 3), (128, min(columns, 64), 32, 4, 3), (64, columns, 32, 4, 2)]
    else:
        sizes = [
            (128, columns, deep, 8 if columns == 128 else 4, 6),
            (128, columns, 32, 8 if columns == 128 else 4, 7),
            (64, columns, deep, 4, 6),
            (64, min(columns, 64), deep, 4, 6),
            (128, columns, deep, 8, 5),
            (32, min(columns, 64), 128 if channels_in > 64 else deep, 4, 5),
        ]
    made = [GatherTile(rows=m, columns=n, reduction=r, warps=w, stages=s) for m, n, r, w, s in sizes]
    return list(dict.fromkeys([safe, *made]))


def _gradient_tiles(channels_in: int, channels_out: int, *, dtype: torch.dtype) -> list[GradientTile]:
    safe = safe_gradient_tile(channels_in, channels_out, dtype=dtype)
    i, o = min(width_of(channels_in), 128), min(width_of(channels_out), 128)
    if dtype == torch.float32:
        sizes = [(32, min(i, 64), min(o, 64), 4, 3), (64, min(i, 64), min(o, 64), 4, 2), (32, min(i, 64), o, 8, 2)]
    else:
        sizes = [
            (64, i, o, 8 if i == o == 128 else 4, 5),
            (64, min(i, 64), o, 4, 5),
            (64, min(i, 64), min(o, 64), 4, 5),
            (128, min(i, 64), min(o, 64), 4, 4),
        ]
    made = [GradientTile(pairs=p, channels_in=i, channels_out=o, warps=w, stages=s) for p, i, o, w, s in sizes]
    return list(dict.fromkeys([safe, *made]))


class _Runner:
    """Runs a task on the voxels of a batch."""

    def __init__(self, batch: Batch) -> None:
        voxels = voxelise(batch.to(torch.device("cuda")), voxel_size_m=VOXEL_SIZE_M, engine="triton").tensor.voxels
        self._by_stride = {voxels.stride: voxels}
        while voxels.stride < 16:
            voxels = voxels.coarser
            self._by_stride[voxels.stride] = voxels

    def run(self, task: Task) -> None:
        shape, dtype = task.shape, task.dtype
        source, target = self._by_stride[shape.stride], self._by_stride[shape.onto]
        gather = source._map(shape.offsets, onto=target)  # type: ignore[attr-defined]
        assert isinstance(gather, ConvolutionMap)
        x = _noise(len(source), shape.channels_in, dtype)
        dy = _noise(len(target), shape.channels_out, dtype)
        weights = _noise(shape.offsets * shape.channels_in, shape.channels_out, dtype)
        weights = weights.view(shape.offsets, shape.channels_in, shape.channels_out)
        self._launch = lambda: _product(task, x, dy, weights, gather)
        self._launch()

    def time(self, task: Task) -> float:
        """Milliseconds."""
        self.run(task)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(REPEATS):
            self._launch()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / REPEATS


def _product(task: Task, x: Tensor, dy: Tensor, weights: Tensor, gather: ConvolutionMap) -> None:
    if isinstance(task.tile, GradientTile):
        convolution.weight_gradient(x, dy, gather, offsets=task.shape.offsets, tile=task.tile)
    elif task.backward:
        convolution.gathered_product(
            dy, weights, gather.backward, backward=True, mirrored=gather.mirrored, tile=task.tile
        )
    else:
        convolution.gathered_product(x, weights, gather.forward, statistics=True, tile=task.tile)


def _compile(tasks: list[Task], batch: Batch) -> list[bool]:
    """Whether each fits the card; what it compiles stays in Triton's cache on disk."""
    from triton.runtime.errors import OutOfResources

    runner, fits = _Runner(batch), []
    for task in tasks:
        try:
            runner.run(task)
            torch.cuda.synchronize()
            fits.append(True)
        except OutOfResources:
            fits.append(False)
    return fits


def _noise(rows: int, channels: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(rows, channels, device="cuda", dtype=dtype)


def _as_lines(table: dict[str, dict[str, dict[str, int]]]) -> str:
    """A line a product."""
    cards = []
    for card, lines in sorted(table.items()):
        products = ",\n".join(f"    {json.dumps(name)}: {json.dumps(tile)}" for name, tile in lines.items())
        cards.append(f"  {json.dumps(card)}: {{\n{products}\n  }}")
    return "{\n" + ",\n".join(cards) + "\n}\n"


if __name__ == "__main__":
    main()
