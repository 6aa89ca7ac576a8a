"""Time and memory of the arms at full model size, side by side.

    python -m benchmarks.full_size [--batch 16] [--steps 30] [--device cuda] [--out full_size.json] [--set KEY=VALUE]
        [SPEC ...]

The specs are ScanNet200-SV's three by default. Weights are random, those of a 2D source too, which features.mode:
online computes maps with in each step. Stored maps are noise, read from disk like real ones: neither changes what a
step costs. Frames are generated rooms of 20,000 points with the spec's augmentation;
loss, clipping and AdamW are the training's own step. Each arm runs in a process of its own, so that its memory is its
own. On the CPU a training step uses one thread, as trainings there do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ditr.data.batch import Batch, as_it_is, collate
from ditr.data.info_pickle import read_infos
from ditr.data.scannet_sv import INFO_FILES, FrameSet
from ditr.features.fused_vit import make_fast
from ditr.features.online_maps import OnlineMaps
from ditr.features.sources import load_source
from ditr.features.store import FeatureStore
from ditr.geometry.camera import SCANNET_SV_INTRINSICS
from ditr.model.esam import EsamSingleView
from ditr.model.prefetch import Prefetcher, engine_of
from ditr.model.reproducible import reproducible
from ditr.progress import silent
from ditr.resources import memory_meter, watching
from ditr.rooms import make
from ditr.runner.feature_inputs import FeatureInputs, sample_set
from ditr.spec.entries import PrecomputedEntry, SplitEntry, SynthRoomsEntry
from ditr.spec.feature_maps import map_channels, map_covers, map_shape
from ditr.spec.load import load_spec
from ditr.spec.models import SeededWeights, Spec
from ditr.spec.registry import Registry
from ditr.training.criterion import Criterion
from ditr.training.step import train_step

ROOT = Path(__file__).resolve().parents[1]
SPECS = tuple(ROOT / "specs" / "scannet200_sv" / f"{arm}.yaml" for arm in ("baseline", "bifusion", "fpn_inject"))
WARM_UP = 5
LOADED_BATCHES = 4
"""As many different batches are made in advance; the steps take them in turn."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one arm."""

    arm: str
    parameters: int
    step_ms: float
    """Median of the steps after the warm-up: copy to the device, 2D features if online, forward, loss, backward,
    clipping, update."""
    forward_ms: float
    """Median of one frame's forward pass in evaluation, batch 1, of its 2D features too if online."""
    data_ms: float
    """Mean of reading and augmenting a training frame on one core, its 2D feature map or image too."""
    train_mem_mb: float
    """Most MiB during a step, and of what."""
    evaluation_mem_mb: float
    memory_of: str
    beside_torch_mb: tuple[float, ...]
    """On a GPU: what is in use there beside what torch reserved, at ten times during the steps; it should not grow."""
    loss: float
    """Of the last step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", type=Path, nargs="*", default=SPECS)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--frames", type=int, default=16, help="generated rooms")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count(), help="processes that make rooms")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="field of every spec=its value")
    arguments = parser.parse_args()
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    print(f"{where}, torch {torch.__version__}, batch {arguments.batch}, {arguments.steps} steps")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        rooms = Path(folder) / "rooms"
        make(_entry(arguments.frames), rooms, workers=arguments.workers, progress=silent)
        costs = []
        for spec in arguments.specs:
            with ProcessPoolExecutor(1, mp_context=context) as alone:
                task = alone.submit(
                    measure,
                    spec,
                    rooms,
                    overrides=tuple(arguments.overrides),
                    batch_size=arguments.batch,
                    steps=arguments.steps,
                    device=arguments.device,
                )
                costs.append(task.result())
            report(costs[-1], costs[0])
    if arguments.out is not None:
        setting = {"device": where, "torch": torch.__version__, "batch": arguments.batch, "steps": arguments.steps}
        arguments.out.write_text(json.dumps(setting | {"arms": [asdict(cost) for cost in costs]}, indent=1))


def report(cost: Cost, first: Cost) -> None:
    """The arm's numbers, and each as a multiple of the first arm's."""
    print(f"{cost.arm}  (memory: {cost.memory_of}; loss {cost.loss:.3f})")
    for name in ("parameters", "step_ms", "forward_ms", "data_ms", "train_mem_mb", "evaluation_mem_mb"):
        value, base = getattr(cost, name), getattr(first, name)
        print(f"  {name:18} {value:14,.1f}   x {value / base:.3f}", flush=True)
    if cost.beside_torch_mb:
        print("  beside torch, MiB ", ", ".join(f"{value:.0f}" for value in cost.beside_torch_mb), flush=True)


def measure(path: Path, rooms: Path, *, overrides: tuple[str, ...], batch_size: int, steps: int, device: str) -> Cost:
    """The cost of one spec's arm on ``batch_size`` frames a step."""
    registry, on = Registry(), torch.device(device)
    spec = load_spec(path, registry=registry, overrides=overrides).spec
    frames = FrameSet(rooms, infos=read_infos(rooms / INFO_FILES["train"]), intrinsics=SCANNET_SV_INTRINSICS)
    features = _features(spec, frames, registry=registry, device=on)
    batches, data_ms = _batches(spec, frames, features=features, size=batch_size, count=min(steps, LOADED_BATCHES))
    torch.manual_seed(0)
    model = EsamSingleView(
        spec.model,
        fusion=spec.fusion,
        feature_channels=features.channels,
        sampling=spec.read_features.sampling if spec.read_features else "bilinear",
        query_fraction=spec.loss.query_fraction,
    ).to(on)
    step_ms, train_mem_mb, memory_of, beside_torch_mb, loss = _train(
        model, batches, spec=spec, encode=features.encode, steps=steps, device=on
    )
    forward_ms, evaluation_mem_mb = _evaluate(model, spec, frames, features=features, count=steps, device=on)
    return Cost(
        arm=spec.name,
        parameters=sum(p.numel() for p in model.parameters()),
        step_ms=step_ms,
        forward_ms=forward_ms,
        data_ms=data_ms,
        train_mem_mb=train_mem_mb,
        evaluation_mem_mb=evaluation_mem_mb,
        memory_of=memory_of,
        beside_torch_mb=beside_torch_mb,
        loss=loss,
    )


def _train(
    model: EsamSingleView,
    batches: list[Batch],
    *,
    spec: Spec,
    encode: Callable[[Batch], Batch],
    steps: int,
    device: torch.device,
) -> tuple[float, float, str, tuple[float, ...], float]:
    criterion = Criterion(spec.loss, esam_compat=spec.esam_compat)
    schedule = spec.schedule
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    prefetcher = Prefetcher(device, encode=encode, model=model)
    memory = memory_meter(device)
    times = []
    beside_torch = []
    loss = float("nan")
    model.train()
    memory.begin()
    for step in range(steps):
        with reproducible(device, engine=engine_of(model)), watching(memory, model):
            began = time.perf_counter()
            said = train_step(
                model,
                prefetcher.ready(batches[step % len(batches)]),
                criterion=criterion,
                optimizer=optimizer,
                clip=schedule.grad_clip_norm,
                precision=spec.execution.precision,
            )
            times.append(_ms_since(began, device=device))
            loss = said.loss.item()
        if device.type == "cuda" and (step + 1) % max(steps // 10, 1) == 0:
            free, total = torch.cuda.mem_get_info(device)
            beside_torch.append((total - free - torch.cuda.memory_reserved(device)) / 2**20)
    return _median(times), memory.peak_mb(), memory.of, tuple(beside_torch), loss


@torch.no_grad()
def _evaluate(
    model: EsamSingleView,
    spec: Spec,
    frames: FrameSet,
    *,
    features: FeatureInputs,
    count: int,
    device: torch.device,
) -> tuple[float, float]:
    samples = sample_set(frames, spec=spec, seed=0, features=features, augmented=False)
    memory = memory_meter(device)
    times = []
    model.eval().zero_grad()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    memory.begin()
    for index in range(min(count, len(samples))):
        batch = Batch(samples=(samples[index],)).to(device)
        _wait_for(device)
        with watching(memory, model):
            began = time.perf_counter()
            model(features.encode(batch))
            times.append(_ms_since(began, device=device))
    return _median(times), memory.peak_mb()


def _batches(
    spec: Spec, frames: FrameSet, *, features: FeatureInputs, size: int, count: int
) -> tuple[list[Batch], float]:
    """``count`` batches, augmented anew in each, and the mean milliseconds that a frame took."""
    samples = sample_set(frames, spec=spec, seed=0, features=features, augmented=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.perf_counter()
    made = []
    for number in range(count):
        samples.set_epoch(number)
        made.append(collate([samples[(number * size + index) % len(samples)] for index in range(size)]))
    took = 1e3 * (time.perf_counter() - began) / (count * size)
    torch.set_num_threads(threads)
    return made, took


def _features(spec: Spec, frames: FrameSet, *, registry: Registry, device: torch.device) -> FeatureInputs:
    """A map of noise for each frame, or the source with random weights; neither without a fusion."""
    features = spec.read_features
    if features is None:
        return FeatureInputs(encode=as_it_is)
    entry = registry.features(features.source)
    channels, covers = map_channels(features, entry), map_covers(features, entry)
    if features.mode == "online":
        assert not isinstance(entry, PrecomputedEntry), "precomputed maps are stored ones"
        drawn = features.model_copy(update={"weights": SeededWeights(kind="seeded", seed=0)})
        source = load_source(drawn, entry=entry, device=device)
        make_fast(source, images=1)
        return FeatureInputs(encode=OnlineMaps(source), online=True, channels=channels, map_hw=covers)
    store = FeatureStore(frames.root / "maps", shape=map_shape(features, entry))
    for index, frame_id in enumerate(store.missing(frames.ids)):
        noise = torch.Generator().manual_seed(index)
        store.write(frame_id, torch.randn(store.shape, generator=noise).half())
    return FeatureInputs(encode=as_it_is, maps=store, channels=channels, map_hw=covers)


def _entry(frames: int) -> SynthRoomsEntry:
    """Up to four views a room; the validation split must hold a frame, which nobody reads."""
    return SynthRoomsEntry(
        kind="synthrooms",
        description="Rooms to measure time on.",
        seed=0,
        first_scene=9500,
        train=SplitEntry(scenes=-(-frames // 4), frames=min(frames, 4)),
        val=SplitEntry(scenes=1, frames=1),
        texture_share=0.4,
    )


def _median(times: list[float]) -> float:
    return statistics.median(times[min(WARM_UP, len(times) - 1) :])


def _ms_since(began: float, *, device: torch.device) -> float:
    _wait_for(device)
    return 1e3 * (time.perf_counter() - began)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
