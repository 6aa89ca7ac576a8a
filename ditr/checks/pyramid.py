"""Stage 3: the levels that 2D features are pooled to lie on the backbone's own voxels and hold what they should.

Frames are read as training reads them and go through the model in pairs. Every level is held against one that is made
by nothing but grouping (see ``by_hand``), on a copy of the model whose added parts all act.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch

from ditr.checks.by_hand import ByHand
from ditr.checks.expected import expected_added, levels_of, relative_error, right_in_another_order
from ditr.checks.outcome import Check, Subject, at_most, equal, largest, yes_or_no
from ditr.checks.scratch import shaken
from ditr.checks.seen import Seen, frames_of, in_pairs, look, name_of, places_of, strides_of, with_gaps
from ditr.data.batch import Batch
from ditr.model.esam import EsamSingleView
from ditr.model.injection import Injector
from ditr.model.sparse import SparseTensor
from ditr.progress import Progress
from ditr.spec.models import FusionSpec, Spec

STAGE = 3

_WITH_GAPS = ("mask", "values", "not_finite")

Measured = dict[str, dict[str, float]]
"""Check -> frames of a pair -> value."""


def check_pyramid(subject: Subject, *, progress: Progress) -> Iterator[Check]:
    """Nothing is checked of a spec that brings no 2D features into the backbone."""
    wanted = places_of(subject.spec.fusion)
    if not wanted:
        return
    model = shaken(subject)
    measured: Measured = defaultdict(dict)
    notes: dict[str, str] = {}
    pairs = in_pairs(len(subject.augmented))
    for done, indices in enumerate(pairs):
        progress("pyramid", done, len(pairs))
        with torch.no_grad():
            _look_at(model, subject.batch(subject.augmented, indices), spec=subject.spec, into=measured, notes=notes)
    progress("pyramid", len(pairs), len(pairs))
    without = [frames for frames, missing in measured["no_injector"].items() if missing]
    detail = f"the backbone got no 2D features of {without[0]}" if without else ""
    yield yes_or_no(STAGE, "injector", not without, limit="given to the backbone", detail=detail)
    for stride in strides_of(subject.spec.fusion):
        yield from _of_level(f"s{stride}", subject, measured, notes=notes)
    for branch, stride in wanted:
        name = f"{name_of(branch, stride)}_projected"
        value, frames = largest(measured[name])
        limit = subject.spec.checks.max_level_error
        yield at_most(STAGE, name, value, limit=limit, detail=_with_note(frames, notes.get(name)))


def _look_at(model: EsamSingleView, batch: Batch, *, spec: Spec, into: Measured, notes: dict[str, str]) -> None:
    """As it is, and with gaps in its features; what gaps tell nothing about is not measured again."""
    frames = frames_of(batch)
    for one, label in ((batch, frames), (with_gaps(batch), f"{frames}, with gaps made")):
        seen = look(model, one)
        into["no_injector"][label] = seen.injector is None
        by_hand = levels_of(one, spec=spec)
        for stride, level in by_hand.items():
            tensor = seen.tensor(stride)
            if seen.injector is not None and tensor is not None:
                limit = spec.checks.max_level_error
                found = _level(seen.injector, tensor, level, stride=stride, limit=limit, notes=notes)
                for check in found if one is batch else _WITH_GAPS:
                    into[f"s{stride}_{check}"][label] = found[check]
        for name, error in _projected(model, seen, by_hand, fusion=spec.fusion, notes=notes).items():
            into[name][label] = error


def _level(
    injector: Injector, tensor: SparseTensor, by_hand: ByHand, *, stride: int, limit: float, notes: dict[str, str]
) -> dict[str, float]:
    """What one level is, beside the backbone's tensor of its stride and beside the one made by hand."""
    voxels, features, mask = injector.voxels(stride), injector.features(stride), injector.mask(stride)
    rows, here = by_hand.rows(tensor.C)
    aligned = bool(here.all()) and len(rows) == len(mask)
    if voxels.coordinate_map_key != tensor.coordinate_map_key:
        notes.setdefault(f"s{stride}_key", f"{voxels.coordinate_map_key}, not {tensor.coordinate_map_key}")
    error = relative_error(features, by_hand, corners=tensor.C)
    if error > limit and right_in_another_order(features, by_hand):
        notes.setdefault(f"s{stride}_values", "the right values in wrong rows")
    same_size = len(voxels) == len(tensor.C)
    return {
        "key": voxels.coordinate_map_key != tensor.coordinate_map_key,
        "manager": voxels.coordinate_manager is not tensor.coordinate_manager,
        "rows": int((voxels.corners != tensor.C).any(dim=1).sum()) if same_size else len(tensor.C),
        "stride": voxels.stride != (stride,) * 3 or bool((tensor.C[:, 1:] % stride).any()),
        "voxels": len(tensor.C),
        "voxels_by_hand": len(by_hand.codes),
        "foreign_voxels": int((~here).sum()) + abs(len(tensor.C) - len(by_hand.codes)),
        "channels": features.shape[1],
        "not_finite": int((~torch.isfinite(features)).sum()),
        "empty_voxels": 1 - float(mask.float().mean()),
        "mask": int((mask != by_hand.mask[rows]).sum()) if aligned else len(mask),
        "values": error,
    }


def _projected(
    model: EsamSingleView, seen: Seen, by_hand: dict[int, ByHand], *, fusion: FusionSpec, notes: dict[str, str]
) -> dict[str, float]:
    """Of each place, how far what was added is from the projection of the level made by hand."""
    errors = {}
    for branch, stride in places_of(fusion):
        place = seen.place(branch, stride)
        name = f"{name_of(branch, stride)}_projected"
        if place is None:
            errors[name] = float("inf")
            continue
        if place.error:
            notes.setdefault(name, place.error)
        expected = expected_added(model, branch, stride, by_hand, fusion=fusion)
        errors[name] = relative_error(place.added, expected, corners=place.before.C)
    return errors


def _of_level(level: str, subject: Subject, measured: Measured, *, notes: dict[str, str]) -> Iterator[Check]:
    def worst(check: str) -> tuple[float, str]:
        value, frames = largest(measured[f"{level}_{check}"])
        return value, _with_note(frames, notes.get(f"{level}_{check}")) if value else ""

    for check, limit in (
        ("key", "the backbone's coordinate key"),
        ("manager", "the backbone's coordinate manager"),
        ("stride", f"a tensor stride of {level[1:]}"),
    ):
        value, detail = worst(check)
        yield yes_or_no(STAGE, f"{level}_{check}", value == 0, limit=limit, detail=detail)
    for check in ("rows", "mask", "not_finite"):
        value, detail = worst(check)
        yield equal(STAGE, f"{level}_{check}", value, expected=0, detail=detail)
    counts = {side: sum(measured[f"{level}_{side}"].values()) for side in ("voxels", "voxels_by_hand")}
    foreign, detail = worst("foreign_voxels")
    if foreign:
        detail = f"{foreign:.0f} that only one side has, {detail}"
    voxels = equal(STAGE, f"{level}_voxels", counts["voxels"], expected=counts["voxels_by_hand"], detail=detail)
    yield voxels if foreign == 0 else _failed(voxels)
    channels, _ = largest(measured[f"{level}_channels"])
    yield equal(STAGE, f"{level}_channels", channels, expected=subject.model.feature_channels or 0)
    value, frames = largest(measured[f"{level}_empty_voxels"])
    limits, name = subject.spec.checks, f"{level}_values"
    yield at_most(STAGE, f"{level}_empty_voxels", value, limit=limits.max_empty_voxels, detail=frames)
    value, frames = largest(measured[name])
    yield at_most(STAGE, name, value, limit=limits.max_level_error, detail=_with_note(frames, notes.get(name)))


def _failed(check: Check) -> Check:
    return Check(
        stage=check.stage, name=check.name, value=check.value, limit=check.limit, passed=False, detail=check.detail
    )


def _with_note(frames: str, note: str | None) -> str:
    return f"{frames}: {note}" if note else frames
