"""Two steps of a training, to tell how long the whole takes: measured in a process of its own, and kept nowhere."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from ditr.errors import Code, DitrError
from ditr.progress import silent
from ditr.runner.costs import Costs, samples_without_maps, stored_features
from ditr.runner.execution import pick_device
from ditr.runner.inputs import fresh_model
from ditr.runner.plan import PlannedRun
from ditr.runner.session import use_cores
from ditr.spec.entries import GivenEntry, PythonEntry
from ditr.spec.models import FeatureSpec, SeededWeights, Spec
from ditr.spec.registry import Registry
from ditr.workers import end_with_parent

if TYPE_CHECKING:
    import torch

    from ditr.data.scannet_sv import FrameSet
    from ditr.features.sources import FeatureSource
    from ditr.runner.feature_inputs import FeatureInputs

_STEPS = 2
_EVALUATED = 3
_IMAGES = 4
"""That the 2D source is timed with."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Of a spec on this machine. Weights are fresh ones, and maps are zeros: neither changes what a step costs."""

    device: str
    step_ms: float
    """Of the second of two steps; the first warms up."""
    read_ms: float
    """Reading and augmenting that step's batch, in one process."""
    frame_ms: float
    """Evaluating a frame, reading it included."""
    map_ms: float
    """Computing one 2D feature map; 0 where a run computes none beforehand."""
    peak_mem_mb: float
    """Most MiB in use during a step."""
    memory_of: str
    """Whose memory that is, in words."""


def probe(spec: Spec, *, makes_maps: bool) -> Probe:
    """Writes nothing. With ``makes_maps`` a run would compute 2D maps beforehand, and that is measured too.

    Raises
    ------
    DitrError: a run would raise it too, or memory ran out.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent) as process:
            return process.submit(_measure, spec, makes_maps=makes_maps).result()
    except BrokenProcessPool as error:
        raise _too_large(spec, "the process died, as it does when the machine has no memory left") from error


def seconds_of_a_run(spec: Spec, *, costs: Costs, probe: Probe) -> float:
    """Estimated, for training and validations; without the 2D maps that are made beforehand, and without start and end.

    Loader processes read while the device computes: the slower of the two sets the pace.
    """
    assert costs.frames is not None, "what was probed has data"
    assert costs.steps is not None, "what was probed has data"
    schedule, workers = spec.schedule, spec.execution.workers
    step_ms = max(probe.step_ms, probe.read_ms / workers) if workers else probe.step_ms + probe.read_ms
    validations = math.ceil(schedule.epochs / schedule.validate_every)
    return (costs.steps * step_ms + validations * costs.frames[1] * probe.frame_ms) / 1000


def seconds_left(run: PlannedRun, *, costs: Costs, probe: Probe) -> float:
    """As ``seconds_of_a_run``, of what is left of one; 0 of one that is not run."""
    if not run.runs:
        return 0.0
    done = max((row["step"] for row in run.folder.logged()), default=0) if run.status == "resume" else 0
    return seconds_of_a_run(run.spec, costs=costs, probe=probe) * (1 - done / (costs.steps or 1))


def _measure(spec: Spec, *, makes_maps: bool) -> Probe:
    import torch

    from ditr.data.dataset import open_dataset
    from ditr.evaluation.evaluate import evaluate
    from ditr.resources import memory_meter
    from ditr.rooms import make_missing
    from ditr.training.fit import fit
    from ditr.training.state import TrainingState

    registry = Registry()
    device = pick_device(spec)
    use_cores(device)
    make_missing(spec.dataset.name, registry=registry)
    dataset = open_dataset(spec.dataset.name, registry=registry)
    train, val = _first(dataset.train, _STEPS * spec.schedule.batch_size), _first(dataset.val, _EVALUATED)
    features = _features(spec, registry=registry, device=device)
    model = fresh_model(spec, seed=0, feature_channels=features.channels)
    last: dict[str, float] = {}
    short = spec.model_copy(
        update={
            "schedule": spec.schedule.model_copy(update={"epochs": 1}),
            "execution": spec.execution.model_copy(update={"workers": 0}),
        }
    )
    try:
        map_ms = _map_ms(spec, train, registry=registry, device=device) if makes_maps else 0.0
        with tempfile.TemporaryDirectory() as folder:
            fitted = fit(
                model,
                train=samples_without_maps(spec, train, features=features, augmented=True),
                spec=short,
                seed=0,
                device=device,
                sink=_Last(last),
                state=TrainingState(Path(folder) / "state.pt"),
                encode=features.encode,
                validate=lambda _: {},
                progress=silent,
                should_stop=lambda: False,
            )
        began = time.perf_counter()
        samples = samples_without_maps(spec, val, features=features)
        evaluate(
            model,
            samples,
            spec=spec.evaluation,
            device=device,
            encode=features.encode,
            workers=0,
            batch_size=spec.schedule.batch_size,
            precision=spec.execution.precision,
        )
    except torch.OutOfMemoryError as error:
        raise _too_large(spec, f"the GPU has no memory left ({error})") from error
    return Probe(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        step_ms=last["train/step_ms"],
        read_ms=last["train/data_ms"],
        frame_ms=1e3 * (time.perf_counter() - began) / len(val),
        map_ms=map_ms,
        peak_mem_mb=fitted.peak_mem_mb,
        memory_of=memory_meter(device).of,
    )


def _features(spec: Spec, *, registry: Registry, device: torch.device) -> FeatureInputs:
    features = stored_features(spec, registry=registry)
    read = spec.read_features
    if read is None or read.mode == "stored":
        return features
    from ditr.features.online_maps import OnlineMaps

    return replace(features, encode=OnlineMaps(_source(read, registry=registry, device=device)), online=True)


def _map_ms(spec: Spec, frames: FrameSet, *, registry: Registry, device: torch.device) -> float:
    """Of the second time."""
    import numpy as np

    assert spec.read_features is not None, "a spec that makes maps has features"
    source = _source(spec.read_features, registry=registry, device=device)
    images = np.stack([frames.image(index) for index in range(min(_IMAGES, len(frames)))])
    took = 0.0
    for _ in range(2):
        began = time.perf_counter()
        source.encode(images).cpu()  # a copy waits for the device
        took = time.perf_counter() - began
    return 1e3 * took / len(images)


def _source(spec: FeatureSpec, *, registry: Registry, device: torch.device) -> FeatureSource:
    """With random weights where it is timm's, so that none are needed."""
    from ditr.features.fused_vit import make_fast
    from ditr.features.sources import load_source

    entry = registry.features(spec.source)
    assert not isinstance(entry, GivenEntry), "precomputed maps are there"
    own = spec if isinstance(entry, PythonEntry) else None
    drawn = own or spec.model_copy(update={"weights": SeededWeights(kind="seeded", seed=0)})
    source = load_source(drawn, entry=entry, device=device)
    make_fast(source, images=1)
    return source


def _first(frames: FrameSet, count: int) -> FrameSet:
    return frames.without(frozenset(frames.ids[count:]))


class _Last:
    """A sink that keeps the last of each metric."""

    def __init__(self, kept: dict[str, float]) -> None:
        self._kept = kept

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._kept.update(metrics)


def _too_large(spec: Spec, what: str) -> DitrError:
    fix = "Lower schedule.batch_size, or probe on the machine that is to run it."
    return DitrError(f"two steps cannot be measured: {what}", code=Code.RUN, where=f"spec {spec.name}", fix=fix)
