"""Rules of the 2D features: between their fields, and of them with the source, the images and the augmentation.

A rule is as in ``rules``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ditr.errors import DitrError
from ditr.spec.entries import (
    SYNTHROOMS_IMAGE,
    GivenEntry,
    PointsEntry,
    PrecomputedEntry,
    PythonEntry,
    SynthRoomsEntry,
    VitEntry,
)
from ditr.spec.feature_maps import Source
from ditr.spec.fusion import FusionSpec
from ditr.spec.models import AugmentationSpec, DatasetSpec, FeatureSpec, HubWeights
from ditr.spec.problems import Finding, in_yaml, repeated
from ditr.spec.registry import Registry


def features_are_known(features: FeatureSpec | None, registry: Registry) -> Iterator[Finding]:
    if features and (what := registry.unknown("features", features.source)):
        yield Finding(("features", "source"), what)


def fusion_has_features(features: FeatureSpec | None, fusion: FusionSpec) -> Iterator[Finding]:
    if fusion.parts and features is None:
        what = "needs 'features' (source, input_size), which is not there or null"
        yield Finding(("fusion", next(iter(fusion.parts))), what, (("features",),))


def input_size_fits_patch(features: FeatureSpec | None, registry: Registry) -> Iterator[Finding]:
    entry = _feature_entry(features, registry)
    if features is None or entry is None or isinstance(entry, GivenEntry):
        return
    if features.input_size is None:
        near = ", ".join(in_yaml(size) for size in entry.sizes)
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


def map_covers_image(dataset: DatasetSpec, features: FeatureSpec | None, registry: Registry) -> Iterator[Finding]:
    """Points beyond what a map covers would read the token at its border without a word."""
    image, entry = _image_size(dataset, registry), _feature_entry(features, registry)
    if features is None or entry is None or image is None:
        return
    images = f"images of {dataset.name} are {_pixels(image)} (height x width)"
    if isinstance(entry, PrecomputedEntry):
        if entry.covers[0] < image[0] or entry.covers[1] < image[1]:
            what = f"its maps cover {_pixels(entry.covers)} pixels, and {images}; take maps of the whole image"
            yield Finding(("features", "source"), what, (("dataset", "name"),))
        return
    if isinstance(entry, PointsEntry):
        return  # read whatever the pixel is
    if features.resize == "resize" or features.input_size is None:
        return
    for index, name in enumerate(("height", "width")):
        if features.input_size[index] < image[index]:
            least = -(-image[index] // entry.patch) * entry.patch
            what = (
                f"padding keeps the image as it is, and {images}; the least {name} of patches of {entry.patch} that"
                f" holds it is {least}; is {features.input_size[index]}"
            )
            yield Finding(("features", "input_size", index), what, (("features", "resize"), ("dataset", "name")))


def given_features_are_as_they_are(features: FeatureSpec | None, registry: Registry) -> Iterator[Finding]:
    """What computes a map has no meaning for one that somebody else computed; nor has a pixel's place in the map for
    features of points."""
    entry = _feature_entry(features, registry)
    if features is None or not isinstance(entry, GivenEntry):
        return
    default = FeatureSpec(source=features.source)
    per_point = isinstance(entry, PointsEntry)
    are = "features of points, each of which reads its own" if per_point else "precomputed maps"
    of_pixels = ("sampling",) if per_point else ()
    for name in ("weights", "mode", "input_size", "resize", "layers", "dtype", "augmentation", *of_pixels):
        if getattr(features, name) != getattr(default, name):
            left = "null" if (value := getattr(default, name)) is None else in_yaml(value)
            what = f"{features.source} are {are}, which this cannot change; remove the key, or write {left}"
            yield Finding(("features", name), what, (("features", "source"),))


def hub_weights_are_of_the_model(features: FeatureSpec | None, registry: Registry) -> Iterator[Finding]:
    entry = _feature_entry(features, registry)
    if features is None or entry is None or isinstance(entry, GivenEntry):
        return
    if isinstance(features.weights, HubWeights) and isinstance(entry, PythonEntry):
        what = f"{features.source} is a class of one's own, of which timm has no weights; take seeded or file"
        yield Finding(("features", "weights", "kind"), what, (("features", "source"),))
    elif isinstance(features.weights, HubWeights) and not isinstance(entry, PythonEntry) and entry.timm_args:
        changed = ", ".join(f"{name}: {value}" for name, value in entry.timm_args.items())
        what = f"timm has no weights of {entry.timm} with {changed}, as {features.source} is; take seeded or file"
        yield Finding(("features", "weights", "kind"), what, (("features", "source"),))


def layers_are_of_a_transformer(features: FeatureSpec | None, registry: Registry) -> Iterator[Finding]:
    entry = _feature_entry(features, registry)
    if features is None or entry is None or isinstance(entry, VitEntry | GivenEntry):
        return
    default = FeatureSpec(source=features.source).layers
    if features.layers != default:
        what = f"{features.source} is no vision transformer of timm's, its map is that of the entry's stride"
        what += f"; remove the key, or write {in_yaml(default)}"
        yield Finding(("features", "layers"), what, (("features", "source"),))


def layers_are_unique(features: FeatureSpec | None) -> Iterator[Finding]:
    yield from repeated(features.layers if features else (), ("features", "layers"))


def images_are_augmented_online(
    features: FeatureSpec | None, augmentation: AugmentationSpec | None, registry: Registry
) -> Iterator[Finding]:
    if features is None or features.augmentation is None:
        return
    if isinstance(_feature_entry(features, registry), GivenEntry):
        return  # there is no online to advise
    if features.mode != "online":
        what = "stored maps are of the image as it is; write features.mode: online, or remove the augmentation"
        yield Finding(("features", "augmentation"), what, (("features", "mode"),))
    if not features.augmentation.mirror_with_points:
        return
    path = ("features", "augmentation", "mirror_with_points")
    if augmentation is None:
        yield Finding(
            path, "the points are never mirrored, for 'augmentation' is null; write false", (("augmentation",),)
        )
    elif augmentation.flip_probability == 0:
        what = "the points are never mirrored, for augmentation.flip_probability is 0; write false"
        yield Finding(path, what, (("augmentation", "flip_probability"),))


def rows_are_of_their_own_points(features: FeatureSpec | None, registry: Registry) -> Iterator[Finding]:
    if features and features.control == "shuffled" and isinstance(_feature_entry(features, registry), PointsEntry):
        what = f"{features.source} are features of points, and another frame has other points; take zero or mean"
        yield Finding(("features", "control"), what, (("features", "source"),))


def controls_are_of_stored_maps(features: FeatureSpec | None) -> Iterator[Finding]:
    if features and features.control != "none" and features.mode != "stored":
        what = f"{features.control} features are made of stored maps; write features.mode: stored"
        yield Finding(("features", "control"), what, (("features", "mode"),))


FEATURE_RULES: tuple[Callable[..., Iterator[Finding]], ...] = (
    features_are_known,
    fusion_has_features,
    input_size_fits_patch,
    map_covers_image,
    given_features_are_as_they_are,
    hub_weights_are_of_the_model,
    layers_are_of_a_transformer,
    layers_are_unique,
    images_are_augmented_online,
    rows_are_of_their_own_points,
    controls_are_of_stored_maps,
)


def _feature_entry(features: FeatureSpec | None, registry: Registry) -> Source | None:
    """None also for an unknown or broken entry: those have messages of their own."""
    try:
        return registry.features(features.source) if features else None
    except DitrError:
        return None


def _image_size(dataset: DatasetSpec, registry: Registry) -> tuple[int, int] | None:
    """Height and width; None also for an unknown or broken entry: those have messages of their own."""
    try:
        entry = registry.dataset(dataset.name)
    except DitrError:
        return None
    return SYNTHROOMS_IMAGE if isinstance(entry, SynthRoomsEntry) else (entry.intrinsics.height, entry.intrinsics.width)


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
