"""What no single field can know: rules between the parts of a spec, and between a spec and the registry.

A rule is a function whose parameters name the parts it needs (fields of ``Spec``, or ``registry``); it runs when all of
them are free of mistakes and yields the path of the offending value with what is wrong there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ditr.errors import DitrError
from ditr.spec.entries import CheckpointEntry, ConvEntry, PrecomputedEntry
from ditr.spec.feature_maps import Source
from ditr.spec.models import (
    AugmentationSpec,
    BackboneSpec,
    Checkpoint,
    ChecksSpec,
    DatasetSpec,
    FeatureSpec,
    FusionSpec,
    LossSpec,
    ModelSpec,
    PolyDecay,
    RegisteredCheckpoint,
    ScheduleSpec,
)
from ditr.spec.problems import PathSteps, Problem, SpecErrors, dotted
from ditr.spec.registry import Registry


@dataclass(frozen=True)
class Finding:
    """What is wrong at ``path``, and the other values that it does not agree with."""

    path: PathSteps
    what: str
    others: tuple[PathSteps, ...] = ()


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


def features_are_known(features: FeatureSpec | None, registry: Registry) -> Iterator[Finding]:
    if features and (what := registry.unknown("features", features.source)):
        yield Finding(("features", "source"), what)


def checkpoint_is_known(checkpoint: Checkpoint | None, registry: Registry) -> Iterator[Finding]:
    if isinstance(checkpoint, RegisteredCheckpoint) and (what := registry.unknown("checkpoints", checkpoint.name)):
        yield Finding(("checkpoint", "name"), what)


def fusion_has_features(features: FeatureSpec | None, fusion: FusionSpec) -> Iterator[Finding]:
    if fusion.parts and features is None:
        what = "needs 'features' (source, input_size), which is not there or null"
        yield Finding(("fusion", fusion.parts[0]), what, (("features",),))


def input_size_fits_patch(features: FeatureSpec | None, registry: Registry) -> Iterator[Finding]:
    entry = _feature_entry(features, registry)
    if features is None or entry is None or isinstance(entry, PrecomputedEntry):
        return
    if features.input_size is None:
        near = ", ".join(_short(size) for size in entry.sizes)
        what = f"{features.source} needs a height and width in pixels{f'; recommended: {near}' if near else ''}"
        yield Finding(("features", "input_size"), what, (("features", "source"),))
        return
    for index, name in enumerate(("height", "width")):
        if not (rest := features.input_size[index] % entry.patch):
            continue
        size = features.input_size[index]
        near = " or ".join(str(one) for one in (size - rest, size - rest + entry.patch) if one)
        must = f"the {name} must be a multiple of {entry.patch}, the patch of {features.source}"
        what = f"{must}; is {size}; nearest: {near}"
        yield Finding(("features", "input_size", index), what, (("features", "source"),))


def precomputed_maps_are_as_they_are(features: FeatureSpec | None, registry: Registry) -> Iterator[Finding]:
    """What computes a map has no meaning for one that somebody else computed."""
    if features is None or not isinstance(_feature_entry(features, registry), PrecomputedEntry):
        return
    default = FeatureSpec(source=features.source)
    for name in ("weights", "mode", "input_size", "resize", "layers", "dtype"):
        if getattr(features, name) != getattr(default, name):
            what = f"the maps of {features.source} are precomputed, which this cannot change; remove the key"
            yield Finding(("features", name), what, (("features", "source"),))


def layers_are_unique(features: FeatureSpec | None, registry: Registry) -> Iterator[Finding]:
    if features is None:
        return
    yield from _repeated(features.layers, ("features", "layers"))
    entry = _feature_entry(features, registry)
    if isinstance(entry, ConvEntry) and features.layers != FeatureSpec(source=features.source).layers:
        what = f"{features.source} is no vision transformer: the map at the entry's stride is taken; remove the key"
        yield Finding(("features", "layers"), what, (("features", "source"),))


def images_are_augmented_online(
    features: FeatureSpec | None, augmentation: AugmentationSpec | None
) -> Iterator[Finding]:
    if features is None or features.augmentation is None:
        return
    if features.mode != "online":
        what = "stored maps are of the image as it is; write features.mode: online, or remove the augmentation"
        yield Finding(("features", "augmentation"), what, (("features", "mode"),))
    if augmentation is None and features.augmentation.mirror_with_points:
        what = "no points are mirrored, for the spec's augmentation is null; write false"
        yield Finding(("features", "augmentation", "mirror_with_points"), what, (("augmentation",),))


def gate_range_ascends(checks: ChecksSpec) -> Iterator[Finding]:
    if checks.gate_range[0] >= checks.gate_range[1]:
        yield Finding(("checks", "gate_range"), f"must be [low, high]; is {_short(checks.gate_range)}")


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
        all_of_it = [f"{dotted(path)} is {_short(a)} there and {_short(b)} here" for path, (a, b) in different.items()]
        what = f"these weights are of another model: {'; '.join(all_of_it)}"
        yield Finding(("checkpoint", "name"), what, tuple(different))


def scales_are_unique(fusion: FusionSpec) -> Iterator[Finding]:
    yield from _repeated(fusion.injection.scales if fusion.injection else (), ("fusion", "injection", "scales"))


def seeds_are_unique(seeds: tuple[int, ...]) -> Iterator[Finding]:
    yield from _repeated(seeds, ("seeds",))


def tags_are_unique(tags: tuple[str, ...]) -> Iterator[Finding]:
    yield from _repeated(tags, ("tags",))


def ranges_ascend(augmentation: AugmentationSpec | None) -> Iterator[Finding]:
    if augmentation and augmentation.scale[0] > augmentation.scale[1]:
        yield Finding(("augmentation", "scale"), f"must be [low, high]; is {_short(augmentation.scale)}")
    elastic = augmentation.elastic if augmentation else None
    if elastic and elastic.granularity[0] > elastic.granularity[1]:
        what = f"must be [fine, coarse]; is {_short(elastic.granularity)}"
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


RULES: tuple[Callable[..., Iterator[Finding]], ...] = (
    dataset_is_known,
    features_are_known,
    checkpoint_is_known,
    fusion_has_features,
    input_size_fits_patch,
    precomputed_maps_are_as_they_are,
    layers_are_unique,
    images_are_augmented_online,
    gate_range_ascends,
    heads_divide_width,
    checkpoint_fits_model,
    scales_are_unique,
    seeds_are_unique,
    tags_are_unique,
    ranges_ascend,
    decay_goes_down,
    compat_weighs_dice_itself,
)


def _feature_entry(features: FeatureSpec | None, registry: Registry) -> Source | None:
    """None also for an unknown or broken entry: those have messages of their own."""
    try:
        return registry.features(features.source) if features else None
    except DitrError:
        return None


def _checkpoint_entry(checkpoint: Checkpoint | None, registry: Registry) -> CheckpointEntry | None:
    """None also for an unknown or broken entry: those have messages of their own."""
    try:
        return registry.checkpoint(checkpoint.name) if isinstance(checkpoint, RegisteredCheckpoint) else None
    except DitrError:
        return None


def _repeated(items: tuple[Any, ...], path: PathSteps) -> Iterator[Finding]:
    for index, item in enumerate(items):
        if item in items[:index]:
            yield Finding((*path, index), f"{item} is in the list twice")


def _short(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
