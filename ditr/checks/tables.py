"""Every measure of ``ditr check``: its name, its limit, and what to do where it fails; one table a part of a stage.

A limit that is a word is a field of the spec's ``checks``. Names of measures of a level or a place begin with it.
"""

from __future__ import annotations

from ditr.checks.measure import equal, least, most, none_of, positive, reported, so, within

_EXTRACT = "extract again"
_CAMERA = "correct the pose (it is camera to world), the intrinsics, or the size that they are for"
_SAMPLES = "samples must carry the pixels of the raw points, u before v, whatever augmentation moves"
_ROWS = "augmentation must leave every point in its row: superpoints, labels and pixels stay where they are"
_GATE = "a gate that is shut lets only one of the two through: check checkpoint and feature source"

# Stage 1, features

LOADING = (so("source_loads", "without an error"),)
EXTRACTED = (
    none_of("maps_present", fix="`ditr features extract` makes missing maps"),
    none_of("map_digest", fix=f"delete them and {_EXTRACT}"),
    so("manifest", "of this spec, data set and weights", fix=f"delete the folder of the maps and {_EXTRACT}"),
)
PRECOMPUTED = (
    none_of("maps_present", fix="put them there"),
    none_of("path_agreement", fix="correct path or files of the registry entry, or pack the info pickle again"),
)
MAP_VALUES = (
    none_of("maps_unreadable"),
    none_of("map_shape"),
    none_of("map_dtype"),
    none_of("map_finite"),
    least("map_variation", "min_map_variation", fix="a map that is the same everywhere tells points nothing"),
    none_of("maps_distinct", fix=f"delete both and {_EXTRACT}"),
)
RECOMPUTED = (
    most("recomputed", "max_map_error", fix="the map is of another image, source, size or order of tokens"),
)
TOKENS = (
    so("token_count", None),
    most(
        "token_locality",
        None,
        fix="class or register tokens count as patches, rows as columns, or the image is cut, moved or mirrored before",
        optional=True,
    ),
)
IMAGES = (none_of("images_unreadable"),)
MAP_PLACES = (
    least("own_image", "min_own_image", fix=f"a map of another image, or with its tokens in another order: {_EXTRACT}"),
    most(
        "map_alignment",
        "max_fit_beside",
        fix="correct resize or input_size of the spec, or covers of the registry entry",
    ),
)
NO_PLACES = (so("own_image", "reported"),)

# Stage 2, projection

PIXELS = (
    none_of("frames_unreadable"),
    least("valid_ratio", "min_valid_ratio", fix=_CAMERA),
    least("depth_ok", "min_valid_ratio", fix=_CAMERA),
    least("boundary_ok", "min_valid_ratio", fix=_CAMERA),
    most("uv_error_px", "max_uv_error_px", fix=_CAMERA),
    most("lattice_error_px", "max_uv_error_px", fix=_CAMERA),
    most("sample_uv_px", "max_uv_error_px", fix=_SAMPLES),
    most(
        "colour_error",
        "max_colour_error",
        fix=f"{_CAMERA}; or the image is another frame's, or its channels are in another order",
    ),
    so(
        "colours_in_place",
        "best at no shift",
        fix="correct the principal point: it is for pixel centres at whole numbers",
    ),
    most("augmented_uv_px", "max_uv_error_px", fix=_SAMPLES),
    most("augmented_colour_error", "max_colour_error", fix=_SAMPLES),
    most("augmented_rows", "max_row_error", fix=_ROWS),
    most("elastic_rows", "max_elastic_row_error", fix=_ROWS),
    none_of(
        "map_extent",
        fix="the samples must say what the map covers: the image, the padded canvas, or covers of the registry entry",
        optional=True,
    ),
    none_of("mirrored_together", fix="image and points must be mirrored together", optional=True),
)
MAP_READING = (
    so(
        "read_where_valid",
        "the points that have a pixel",
        fix="the model must take the samples' uv_valid as it is",
        optional=True,
    ),
    most(
        "read_error_tokens",
        "max_read_error_tokens",
        fix="the reading takes rows for columns, other ends of the map, another size of what it covers, or another "
        "sample",
        optional=True,
    ),
)
PASSES = (none_of("forward_errors"), none_of("forward_not_finite"))
GATES = tuple(
    within(name, "gate_range", worst="farthest", fix=_GATE) for name in ("fusion_2d_ratio", "fusion_3d_ratio")
)
COSTS = (most("forward_s", "max_forward_s"), most("forward_mb", "max_forward_mb"))
OUTPUTS = (
    most("batch_equals_single", "max_batch_error", fix="samples of a batch are dropped, swapped or mixed"),
    least("map_matters", "min_map_effect", fix="no part of the fusion reads the map", optional=True),
)

# Stage 3, pyramid

INJECTOR = (so("injector", "given to the backbone"),)
LEVEL = (
    so("key", "the backbone's coordinate key"),
    so("manager", "the backbone's coordinate manager"),
    so("stride", None),
    equal("rows"),
    equal("mask"),
    equal("not_finite"),
    equal("voxels", None, worst="sum"),
    equal("channels", None),
    most("empty_voxels", "max_empty_voxels"),
    most("values", "max_level_error"),
)
PROJECTED = (most("projected", "max_level_error"),)

# Stage 4, injection

OUTPUT = (equal("output_not_finite", worst="sum"), equal("repeatable"), equal("late_weights", worst="sum"))
START = (equal("start_weights_3d", worst="sum"), equal("start_weights_elsewhere", worst="sum"))
IDENTITY = (equal("identity_at_start"),)
NO_IDENTITY = (reported("identity_at_start"),)
PLACE = (
    equal("channels_before", None),
    equal("channels_after", None),
    most("added", "max_level_error"),
    most("zero_rows", "max_empty_voxels"),
    equal("changed_without_feature"),
)
ELSEWHERE = (equal("changed_elsewhere"),)
BIFUSION = (
    equal("not_called"),
    equal("channels", None),
    most("zero_rows", None),
    equal("changed_without_feature"),
)
FROZEN = (equal("frozen_weights", worst="sum"),)
GRADIENTS = (equal("weights_outside_model", worst="sum"), equal("weights_without_gradient", worst="sum"))
GRADIENT = (positive("gradient"),)
MOVED = (positive("moved"),)
DOUBLING = (
    within(
        "doubling",
        "doubling_range",
        fix="it starts as nothing only until the first update: a norm behind a zero layer?",
    ),
)
