"""What 2D features inside the model cost a training step at full model size, side by side with the 3D-only model.

    python -m benchmarks.injection [--batch 16] [--steps 12] [--device cuda] [--out injection.json] [--arms NAME ...]

The model is ScanNet200-SV's; weights are random, maps are noise read from disk, frames are generated rooms of 20,000
points with the spec's augmentation, and every arm takes the same batches. "direct" arms pool all channels of all points
with the sparse library (ditr.model.pyramid), as the definition says; the others are the model's own. One process runs
all arms in turn, each with a model of its own; torch gives its memory back in between. Whole steps wait for matching
on the host and vary with it (531 and 658 ms of one arm in two runs); the backbone alone varies less.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from ditr.model.pyramid import Level, build_pyramid
from torch import Tensor

from benchmarks.full_size import SPECS, WARM_UP, _batches, _entry, _features, _ms_since, _train
from ditr.data.batch import Batch, as_it_is
from ditr.data.info_pickle import read_infos
from ditr.data.scannet_sv import INFO_FILES, FrameSet
from ditr.geometry.camera import SCANNET_SV_INTRINSICS
from ditr.model.esam import EsamSingleView
from ditr.model.injection import Places
from ditr.model.point_features import PointFeatures
from ditr.model.res16unet import Branch, Inject
from ditr.model.sparse import SparseTensor, Voxels, one_thread, voxelise, with_features
from ditr.progress import silent
from ditr.rooms import make
from ditr.spec.load import load_spec
from ditr.spec.models import BiFusionSpec, FusionSpec, InjectionSpec, Spec, StemSpec
from ditr.spec.registry import Registry

LOADED_BATCHES = 4
MEAN, MAX = InjectionSpec(pooling="mean"), InjectionSpec(pooling="max")
ARMS: Mapping[str, FusionSpec] = {
    "3D only": FusionSpec(),
    "mean": FusionSpec(injection=MEAN),
    "mean, direct": FusionSpec(injection=MEAN),
    "max": FusionSpec(injection=MAX),
    "max, direct": FusionSpec(injection=MAX),
    "max, project_then_pool": FusionSpec(injection=MAX.model_copy(update={"order": "project_then_pool"})),
    "gate": FusionSpec(bifusion=BiFusionSpec()),
    "stem": FusionSpec(stem=StemSpec()),
    "gate and max": FusionSpec(bifusion=BiFusionSpec(), injection=MAX),
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one arm."""

    arm: str
    step_ms: float
    """Median of whole training steps after the warm-up: loss, matching and update included."""
    backbone_ms: float
    """Median of voxelisation, reading of the maps, and the backbone's forward and backward pass alone."""
    train_mem_mb: float
    """Most MiB in use during a step, as a run's peak_mem_mb counts: on a GPU, torch's cache and what lies beside it."""
    allocated_mb: float | None
    """Most MiB of tensors during a step, without torch's cache and without the sparse library's maps; on a GPU only."""
    memory_of: str
    loss: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--frames", type=int, default=16, help="generated rooms")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count(), help="processes that make rooms")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{where}, torch {torch.__version__}, batch {arguments.batch}, {arguments.steps} steps", flush=True)
    setting = {"device": where, "torch": torch.__version__, "batch": arguments.batch, "steps": arguments.steps}
    registry = Registry()
    spec = load_spec(SPECS[-1], registry=registry).spec
    with tempfile.TemporaryDirectory() as folder:
        rooms = Path(folder) / "rooms"
        make(_entry(arguments.frames), rooms, workers=arguments.workers, progress=silent)
        frames = FrameSet(rooms, infos=read_infos(rooms / INFO_FILES["train"]), intrinsics=SCANNET_SV_INTRINSICS)
        features = _features(spec, frames, registry=registry, device=device)
        count = min(arguments.steps, LOADED_BATCHES)
        batches, _ = _batches(spec, frames, features=features, size=arguments.batch, count=count)
        assert features.channels is not None
        costs: list[Cost] = []
        for arm in arguments.arms:
            costs.append(measure(arm, spec, batches, channels=features.channels, steps=arguments.steps, device=device))
            report(costs[-1], costs[0])
            if arguments.out is not None:
                arguments.out.write_text(json.dumps(setting | {"arms": [asdict(cost) for cost in costs]}, indent=1))


def measure(arm: str, spec: Spec, batches: list[Batch], *, channels: int, steps: int, device: torch.device) -> Cost:
    """The cost of one arm; nothing of it is left afterwards."""
    spec = spec.model_copy(update={"fusion": ARMS[arm]})
    torch.manual_seed(0)
    model = EsamSingleView(
        spec.model,
        fusion=spec.fusion,
        feature_channels=channels if spec.fusion.parts else None,
        sampling="bilinear",
        query_fraction=spec.loss.query_fraction,
    )
    if arm.endswith("direct"):
        model.injector = _direct(model, spec.fusion)  # type: ignore[assignment]
    model.to(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    step_ms, train_mem_mb, memory_of, _, loss = _train(
        model, batches, spec=spec, encode=as_it_is, steps=steps, device=device
    )
    allocated = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    backbone_ms = _backbone_ms(model, batches, count=steps, device=device)
    del model
    gc.collect()
    return Cost(
        arm=arm,
        step_ms=step_ms,
        backbone_ms=backbone_ms,
        train_mem_mb=train_mem_mb,
        allocated_mb=allocated,
        memory_of=memory_of,
        loss=loss,
    )


def report(cost: Cost, first: Cost) -> None:
    """The arm's numbers, and each as a multiple of the first arm's."""
    parts = [f"{cost.arm:24}"]
    for name, unit in (("step_ms", "ms"), ("backbone_ms", "ms"), ("train_mem_mb", "MiB"), ("allocated_mb", "MiB")):
        value, base = getattr(cost, name), getattr(first, name)
        parts.append(f"{name} -" if value is None else f"{name} {value:,.0f} {unit} x {value / base:.3f}")
    print("  ".join(parts), f" loss {cost.loss:.3f}", flush=True)


def _backbone_ms(model: EsamSingleView, batches: list[Batch], *, count: int, device: torch.device) -> float:
    times = []
    model.train()
    for number in range(count):
        batch = batches[number % len(batches)].to(device)
        model.zero_grad()
        began = time.perf_counter()
        statistics_of_step: dict[str, Tensor] = {}
        points = model.read_2d(batch, statistics=statistics_of_step)
        with one_thread():
            voxels = voxelise(batch, voxel_size_m=model.voxel_size_m)
            out = model.backbone(voxels.tensor, inject=model.injector(points, voxels, statistics=statistics_of_step)).F
        out.sum().backward()
        times.append(_ms_since(began, device=device))
    return statistics.median(times[min(WARM_UP, len(times) - 1) :])


def _direct(model: EsamSingleView, fusion: FusionSpec) -> object:
    """In place of ``model.injector``."""
    assert model.injection is not None
    assert fusion.injection is not None
    places, pooling, scales = model.injection.places(), fusion.injection.pooling, fusion.injection.scales

    def injector(points: PointFeatures, voxels: Voxels, *, statistics: dict[str, Tensor]) -> Inject:
        del statistics
        return _pooled_directly(places, build_pyramid(points, voxels, strides=scales, pooling=pooling))

    return injector


def _pooled_directly(places: Places, levels: Mapping[int, Level]) -> Inject:
    def inject(branch: Branch, stride: int, tensor: SparseTensor) -> SparseTensor:
        place = places.get((branch, stride))
        if place is None:
            return tensor
        rows = levels[stride].mask.nonzero().squeeze(1)
        added = torch.zeros_like(tensor.F).index_copy(
            0, rows, place.projection(levels[stride].tensor.F.index_select(0, rows))
        )
        return with_features(tensor, tensor.F + added)

    return inject


if __name__ == "__main__":
    main()
