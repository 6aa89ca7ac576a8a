"""What no single field can know: rules between the parts of a spec, and between a spec and the registry.

A rule is a function whose parameters name the parts it needs (fields of ``Spec``, or ``registry``); it runs when all of
them are free of mistakes and yields the path of the offending value with what is wrong there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ditr.errors import DitrError
from ditr.spec.check_limits import ChecksSpec
from ditr.spec.entries import (
    CheckpointEntry,
)
from ditr.spec.feature_rules import FEATURE_RULES
from ditr.spec.fusion import FusionSpec
from ditr.spec.fusion_part import BOTTLENECK_STRIDE
from ditr.spec.models import (
    AugmentationSpec,
    BackboneSpec,
    Checkpoint,
    DatasetSpec,
    ExecutionSpec,
    LossSpec,
    ModelSpec,
    PolyDecay,
    RegisteredCheckpoint,
    ScheduleSpec,
)
from ditr.spec.problems import Finding, PathSteps, Problem, SpecErrors, dotted, in_yaml, repeated
from ditr.spec.registry import Registry


def broken_rules(parts: Mapping[str, Any]) -> list[Finding]:
    """What every rule finds whose parts are all in ``parts``."""
    findings: list[Finding] = []
    for rule in RULES:
        needs = inspect.signature(rule).parameters
        if needs.keys() <= parts.keys():
            findings.extend(rule(**{name: parts[name] for name in needs}))
    return findings


def broken_entries(parts: Mapping[str, Any]) -> list[Problem]:
    """The mistakes in the registry entries that the parts name; unknown names are found by the rules."""
    registry: Registry = parts["registry"]
    dataset, features, checkpoint = (parts.get(name) for name in ("dataset", "features", "checkpoint"))
    reads: list[Callable[[], object]] = []
    if dataset and not registry.unknown("datasets", dataset.name):
        reads.append(lambda: registry.dataset(dataset.name))
    if features and not registry.unknown("features", features.source):
        reads.append(lambda: registry.features(features.source))
    if isinstance(checkpoint, RegisteredCheckpoint) and not registry.unknown("checkpoints", checkpoint.name):
        reads.append(lambda: registry.checkpoint(checkpoint.name))
    problems: list[Problem] = []
    for read in reads:
        try:
            read()
        except SpecErrors as error:
            problems.extend(error.problems)
    return problems


def dataset_is_known(dataset: DatasetSpec, registry: Registry) -> Iterator[Finding]:
    if what := registry.unknown("datasets", dataset.name):
        yield Finding(("dataset", "name"), what)


def checkpoint_is_known(checkpoint: Checkpoint | None, registry: Registry) -> Iterator[Finding]:
    if isinstance(checkpoint, RegisteredCheckpoint) and (what := registry.unknown("checkpoints", checkpoint.name)):
        yield Finding(("checkpoint", "name"), what)


def limits_ascend(checks: ChecksSpec) -> Iterator[Finding]:
    for name, bounds in (("gate_range", checks.gate_range), ("doubling_range", checks.doubling_range)):
        if bounds[0] >= bounds[1]:
            yield Finding(("checks", name), f"must be [low, high]; is {in_yaml(bounds)}")


def heads_divide_width(model: ModelSpec) -> Iterator[Finding]:
    width, heads = model.decoder.width, model.decoder.heads
    if width % heads:
        what = f"must be a multiple of model.decoder.heads, {heads}; is {width}"
        yield Finding(("model", "decoder", "width"), what, (("model", "decoder", "heads"),))


def checkpoint_fits_model(checkpoint: Checkpoint | None, model: ModelSpec, registry: Registry) -> Iterator[Finding]:
    entry = _checkpoint_entry(checkpoint, registry)
    if entry is None:
        return
    pairs: dict[PathSteps, tuple[object, object]] = {
        ("model", "backbone", name): (getattr(entry.backbone, name), getattr(model.backbone, name))
        for name in BackboneSpec.model_fields
    }
    pairs["model", "voxel_size_m"] = (entry.voxel_size_m, model.voxel_size_m)
    different = {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}
    if different:
        all_of_it = [
            f"{dotted(path)} is {in_yaml(a)} there and {in_yaml(b)} here" for path, (a, b) in different.items()
        ]
        what = f"these weights are of another model: {'; '.join(all_of_it)}"
        yield Finding(("checkpoint", "name"), what, tuple(different))


def scales_are_unique(fusion: FusionSpec) -> Iterator[Finding]:
    yield from repeated(fusion.injection.scales if fusion.injection else (), ("fusion", "injection", "scales"))


def skip_has_a_decoder_stride(fusion: FusionSpec) -> Iterator[Finding]:
    injection = fusion.injection
    if injection and injection.target == "skip" and set(injection.scales) == {BOTTLENECK_STRIDE}:
        what = (
            f"at stride {BOTTLENECK_STRIDE}, the only one of scales, there is no skip branch; remove the key, or add a"
            " stride of the decoder"
        )
        yield Finding(("fusion", "injection", "target"), what, (("fusion", "injection", "scales"),))


def seeds_are_unique(seeds: tuple[int, ...]) -> Iterator[Finding]:
    yield from repeated(seeds, ("seeds",))


def seeds_fit_their_limit(seeds: tuple[int, ...], max_seeds: int | None) -> Iterator[Finding]:
    if max_seeds is not None and max_seeds < len(seeds):
        yield Finding(("max_seeds",), f"is {max_seeds}, and there are {len(seeds)} seeds", (("seeds",),))


def tags_are_unique(tags: tuple[str, ...]) -> Iterator[Finding]:
    yield from repeated(tags, ("tags",))


def ranges_ascend(augmentation: AugmentationSpec | None) -> Iterator[Finding]:
    if augmentation and augmentation.scale[0] > augmentation.scale[1]:
        yield Finding(("augmentation", "scale"), f"must be [low, high]; is {in_yaml(augmentation.scale)}")
    elastic = augmentation.elastic if augmentation else None
    if elastic and elastic.granularity[0] > elastic.granularity[1]:
        what = f"must be [fine, coarse]; is {in_yaml(elastic.granularity)}"
        yield Finding(("augmentation", "elastic", "granularity"), what)


def decay_goes_down(schedule: ScheduleSpec) -> Iterator[Finding]:
    if isinstance(schedule.decay, PolyDecay) and schedule.decay.final >= schedule.learning_rate:
        what = f"must be below schedule.learning_rate, {schedule.learning_rate}; is {schedule.decay.final}"
        yield Finding(("schedule", "decay", "final"), what, (("schedule", "learning_rate"),))


def compat_weighs_dice_itself(loss: LossSpec, esam_compat: bool) -> Iterator[Finding]:
    default = LossSpec().dice_aux
    if esam_compat and loss.dice_aux != default:
        what = (
            f"esam_compat weighs these terms 4 / batch size of the step, whatever is said here; leave it at {default}"
        )
        yield Finding(("loss", "dice_aux"), f"{what}; is {loss.dice_aux}", (("esam_compat",),))


def triton_runs_on_a_gpu(execution: ExecutionSpec) -> Iterator[Finding]:
    if execution.device == "cpu" and execution.engine == "triton":
        what = "triton runs on GPUs alone, and execution.device is cpu; let one of the two be auto"
        yield Finding(("execution", "engine"), what, (("execution", "device"),))


def half_precision_is_tritons(execution: ExecutionSpec) -> Iterator[Finding]:
    path, device, engine = (("execution", name) for name in ("precision", "device", "engine"))
    if execution.precision == "float32":
        return
    needs = f"{execution.precision} needs the engine triton"
    if execution.engine == "minkowski":
        yield Finding(path, f"{needs}, and execution.engine is minkowski, which computes in float32", (engine,))
    elif execution.device == "cpu":
        yield Finding(path, f"{needs}, which runs on GPUs alone, and execution.device is cpu", (device,))


def every_gpu_has_a_frame(execution: ExecutionSpec, schedule: ScheduleSpec) -> Iterator[Finding]:
    if execution.gpus > schedule.batch_size:
        what = (
            f"must be at most schedule.batch_size, {schedule.batch_size}, which is cut over them; is {execution.gpus}"
        )
        yield Finding(("execution", "gpus"), what, (("schedule", "batch_size"),))


RULES: tuple[Callable[..., Iterator[Finding]], ...] = (
    *FEATURE_RULES,
    dataset_is_known,
    checkpoint_is_known,
    limits_ascend,
    heads_divide_width,
    checkpoint_fits_model,
    scales_are_unique,
    skip_has_a_decoder_stride,
    seeds_are_unique,
    seeds_fit_their_limit,
    tags_are_unique,
    ranges_ascend,
    decay_goes_down,
    compat_weighs_dice_itself,
    triton_runs_on_a_gpu,
    half_precision_is_tritons,
    every_gpu_has_a_frame,
)


def _checkpoint_entry(checkpoint: Checkpoint | None, registry: Registry) -> CheckpointEntry | None:
    """None also for an unknown or broken entry: those have messages of their own."""
    try:
        return registry.checkpoint(checkpoint.name) if isinstance(checkpoint, RegisteredCheckpoint) else None
    except DitrError:
        return None
