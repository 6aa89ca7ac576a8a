"""Every measure of ``ditr check``: its name, its limit, and what to do where it fails; one table a part of a stage.

A limit that is a word is a field of the spec's ``checks``. Names of measures of a level or a place begin with it.
"""

from __future__ import annotations

from ditr.checks.measure import AT_LEAST, AT_MOST, EQUAL, NONE_WRONG, POSITIVE, REPORTED, SO, TOTAL, WITHIN, Measure

_STORED = "delete them and extract again"
_VARIED = "a map that is the same everywhere tells points nothing"
_COMPUTED = "the map is of another image, source, size or order of tokens"
_TOKENS = "class or register tokens count as patches, rows as columns, or the image is cut, moved or mirrored before"
_REPEATED = "a map may depend on its image alone: no dropout, no random numbers, no statistics of the batch, no state"
_FITTING = "a map of another image, or with its tokens in another order: extract again"
_COVERED = "correct resize or input_size of the spec, or covers of the registry entry"
_CAMERA = "correct the pose (it is camera to world), the intrinsics, or the size that they are for"
_COLOURS = f"{_CAMERA}; or the image is another frame's, or its channels are in another order"
_CENTRE = "correct the principal point: it is for pixel centres at whole numbers"
_SAMPLES = "samples must carry the pixels of the raw points, u before v, whatever augmentation moves"
_ROWS = "augmentation must leave every point in its row: superpoints, labels and pixels stay where they are"
_EXTENT = "the samples must say what the map covers: the image, the padded canvas, or covers of the registry entry"
_READING = "the reading takes rows for columns, other ends of the map, another extent of it, or another sample"
_GATE = "a gate that is shut lets only one of the two through: check checkpoint and feature source"
_BATCH = "samples of a batch are dropped, swapped or mixed"
_SMOOTH = "it starts as nothing only until the first update: a norm behind a zero layer?"
_CALLED = "the model does not come to all methods of the part, or it overrides none"
_NOTHING = "start the last layer of the part at zero, so that a run starts as the 3D-only model"
_ACTS = "with weights that are not zero it changes nothing: it gives back what it got"
_MISSING = "keep rows without a 2D feature as they are (`points.valid`, `voxels.mask`), or say leaves_missing = False"
_OWN_ROWS = "a row gets what belongs to another: rows must stay in the order in which they come"

# Stage 1, features

LOADING = (Measure("source_loads", SO, "without an error"),)
EXTRACTED = (
    Measure("maps_present", NONE_WRONG, fix="`ditr features extract` makes missing maps"),
    Measure("map_digest", NONE_WRONG, fix=_STORED),
    Measure("manifest", SO, "of this spec, data set and weights", fix=_STORED),
)
PRECOMPUTED = (
    Measure("maps_present", NONE_WRONG, fix="put them there"),
    Measure("path_agreement", NONE_WRONG, fix="correct path or files of the registry entry, or pack the info again"),
)
TABLES = (Measure("maps_present", NONE_WRONG, fix="put them there"),)
MAP_VALUES = (
    Measure("maps_unreadable", NONE_WRONG),
    Measure("map_shape", NONE_WRONG),
    Measure("map_dtype", NONE_WRONG),
    Measure("map_finite", NONE_WRONG),
    Measure("map_variation", AT_LEAST, "min_map_variation", fix=_VARIED),
    Measure("maps_distinct", NONE_WRONG, fix=_STORED),
)
RECOMPUTED = (Measure("recomputed", AT_MOST, "max_map_error", fix=_COMPUTED),)
TOKENS = (
    Measure("token_count", SO, None),
    Measure("token_locality", AT_MOST, None, fix=_TOKENS, optional=True),
    Measure("repeated", AT_MOST, "max_map_error", fix=_REPEATED, optional=True),
)
IMAGES = (Measure("images_unreadable", NONE_WRONG),)
MAP_ALIGNMENT = (
    Measure("own_image", AT_LEAST, "min_own_image", fix=_FITTING),
    Measure("map_alignment", AT_MOST, "max_fit_beside", fix=_COVERED),
)
NO_ALIGNMENT = (Measure("own_image", SO, "reported"),)

# Stage 2, projection

PIXELS = (
    Measure("frames_unreadable", NONE_WRONG),
    Measure("valid_ratio", AT_LEAST, "min_valid_ratio", fix=_CAMERA),
    Measure("depth_ok", AT_LEAST, "min_valid_ratio", fix=_CAMERA),
    Measure("boundary_ok", AT_LEAST, "min_valid_ratio", fix=_CAMERA),
    Measure("uv_error_px", AT_MOST, "max_uv_error_px", fix=_CAMERA),
    Measure("lattice_error_px", AT_MOST, "max_uv_error_px", fix=_CAMERA),
    Measure("sample_uv_px", AT_MOST, "max_uv_error_px", fix=_SAMPLES),
    Measure("colour_error", AT_MOST, "max_colour_error", fix=_COLOURS),
    Measure("colours_in_place", SO, "best at no shift", fix=_CENTRE),
    Measure("augmented_uv_px", AT_MOST, "max_uv_error_px", fix=_SAMPLES),
    Measure("augmented_colour_error", AT_MOST, "max_colour_error", fix=_SAMPLES),
    Measure("augmented_rows", AT_MOST, "max_row_error", fix=_ROWS),
    Measure("elastic_rows", AT_MOST, "max_elastic_row_error", fix=_ROWS),
    Measure("map_extent", NONE_WRONG, fix=_EXTENT, optional=True),
    Measure("mirrored_together", NONE_WRONG, fix="image and points must be mirrored together", optional=True),
)
MAP_READING = (
    Measure(
        "read_where_valid", SO, "the points that have a pixel", fix="uv_valid is to be read as it is", optional=True
    ),
    Measure("read_error_tokens", AT_MOST, "max_read_error_tokens", fix=_READING, optional=True),
)
PASSES = (Measure("forward_errors", NONE_WRONG), Measure("forward_not_finite", NONE_WRONG))
GATES = tuple(Measure(name, WITHIN, "gate_range", fix=_GATE) for name in ("fusion_2d_ratio", "fusion_3d_ratio"))
COSTS = (Measure("forward_s", AT_MOST, "max_forward_s"), Measure("forward_mb", AT_MOST, "max_forward_mb"))
OUTPUTS = (
    Measure("batch_equals_single", AT_MOST, "max_batch_error", fix=_BATCH),
    Measure("map_matters", AT_LEAST, "min_map_effect", fix="no part of the fusion reads the map", optional=True),
)

# Stage 3, pyramid

INJECTOR = (Measure("injector", SO, "given to the backbone"),)
LEVEL = (
    Measure("same_voxels", SO, "the backbone's own"),
    Measure("stride", SO, None),
    Measure("rows", EQUAL),
    Measure("mask", EQUAL),
    Measure("not_finite", EQUAL),
    Measure("voxels", TOTAL, None),
    Measure("channels", EQUAL, None),
    Measure("empty_voxels", AT_MOST, "max_empty_voxels"),
    Measure("values", AT_MOST, "max_level_error"),
)
PROJECTED = (Measure("projected", AT_MOST, "max_level_error"),)

# Stage 4, injection

OUTPUT = (Measure("output_not_finite", TOTAL), Measure("repeatable", EQUAL), Measure("late_weights", TOTAL))
START = (Measure("start_weights_3d", TOTAL), Measure("start_weights_elsewhere", TOTAL))
IDENTITY = (Measure("identity_at_start", EQUAL),)
NO_IDENTITY = (Measure("identity_at_start", REPORTED),)
PLACE = (
    Measure("channels_before", EQUAL, None),
    Measure("channels_after", EQUAL, None),
    Measure("added", AT_MOST, "max_level_error"),
    Measure("zero_rows", AT_MOST, "max_empty_voxels"),
    Measure("changed_without_feature", EQUAL),
)
ELSEWHERE = (Measure("changed_elsewhere", EQUAL),)
BIFUSION = (Measure("channels", EQUAL, None), Measure("zero_rows", AT_MOST, None))
PART = (
    Measure("not_called", EQUAL, fix=_CALLED),
    Measure("not_finite", TOTAL),
    Measure("starts_as_nothing", EQUAL, fix=_NOTHING, optional=True),
    Measure("acts", POSITIVE, fix=_ACTS),
    Measure("changed_without_feature", TOTAL, fix=_MISSING, optional=True),
    Measure("rows", AT_MOST, "max_level_error", fix=_OWN_ROWS),
)
PART_LEARNS = (
    Measure("gradient", POSITIVE),
    Measure("moved", POSITIVE),
    Measure("map_matters", AT_LEAST, "min_map_effect", fix="what the part does is the same whatever the map says"),
)
FROZEN = (Measure("frozen_weights", TOTAL),)
GRADIENTS = (Measure("weights_outside_model", TOTAL), Measure("weights_without_gradient", TOTAL))
GRADIENT = (Measure("gradient", POSITIVE),)
MOVED = (Measure("moved", POSITIVE),)
DOUBLING = (Measure("doubling", WITHIN, "doubling_range", fix=_SMOOTH),)
