"""Stage 4: what enters the backbone is base plus projection and nothing else, starts as nothing, and learns.

Frames are read as evaluation reads them and go through the model in pairs; the updates take frames as training reads
them. Everything happens on copies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch

from ditr.checks.by_hand import ByHand
from ditr.checks.expected import expected_added, levels_of, relative_error
from ditr.checks.outcome import Check, Subject, at_most, equal, largest
from ditr.checks.scratch import shaken
from ditr.checks.seen import Place, Seen, frames_of, in_pairs, look, name_of, places_of, with_gaps
from ditr.checks.start import STAGE, check_start
from ditr.checks.updates import check_updates
from ditr.data.batch import Batch
from ditr.model.esam import EsamSingleView
from ditr.model.res16unet import Branch
from ditr.progress import Progress
from ditr.spec.models import BOTTLENECK_STRIDE, DECODER_STRIDES, BackboneSpec, FusionSpec, Spec

Measured = dict[str, dict[str, float]]
"""Check -> frames of a pair -> value."""


def check_injection(subject: Subject, *, progress: Progress) -> Iterator[Check]:
    """A spec without fusion is looked at for what any model has to be: the same twice, and finite."""
    pairs = in_pairs(len(subject.plain))
    yield from check_start(subject, pairs=pairs, progress=progress)
    if not subject.spec.fusion.parts:
        return
    measured: Measured = defaultdict(dict)
    model = shaken(subject)
    for done, indices in enumerate(pairs):
        progress("injection", done, len(pairs))
        batch = subject.batch(subject.plain, indices)
        with torch.no_grad():
            _look_at(model, batch, spec=subject.spec, into=measured)
    progress("injection", len(pairs), len(pairs))
    yield from _of_places(subject, measured)
    if subject.spec.fusion.bifusion is not None:
        yield from _of_gate(subject, measured)
    yield from check_updates(subject, progress=progress)


def _look_at(model: EsamSingleView, batch: Batch, *, spec: Spec, into: Measured) -> None:
    """As it is for what is added, and with gaps for what must not be."""
    frames = frames_of(batch)
    _look_once(model, batch, spec=spec, frames=frames, gaps=False, into=into)
    _look_once(model, with_gaps(batch), spec=spec, frames=f"{frames}, with gaps made", gaps=True, into=into)


def _look_once(model: EsamSingleView, batch: Batch, *, spec: Spec, frames: str, gaps: bool, into: Measured) -> None:
    seen = look(model, batch)
    wanted = places_of(spec.fusion)
    into["changed_elsewhere"][frames] = sum(
        not torch.equal(place.before.F, place.after.F)
        for place in seen.places
        if (place.branch, place.stride) not in wanted
    )
    by_hand = levels_of(batch, spec=spec) if wanted else {}
    found: dict[str, float] = {}
    for branch, stride in wanted:
        place, name = seen.place(branch, stride), name_of(branch, stride)
        of_place = {"added": float("inf")} if place is None else _of_place(model, place, by_hand, fusion=spec.fusion)
        found |= {f"{name}_{check}": value for check, value in of_place.items()}
    if spec.fusion.bifusion is not None:
        found |= {f"bifusion_{check}": value for check, value in _gate(seen).items()}
    for check, value in found.items():
        if not (gaps and check.endswith("zero_rows")):
            into[check][frames] = value


def _of_place(
    model: EsamSingleView, place: Place, by_hand: dict[int, ByHand], *, fusion: FusionSpec
) -> dict[str, float]:
    found = {"channels_before": place.before.F.shape[1], "channels_after": place.after.F.shape[1]}
    if place.before.F.shape != place.after.F.shape:
        return found | {"added": float("inf")}
    expected = expected_added(model, place.branch, place.stride, by_hand, fusion=fusion)
    rows, here = expected.rows(place.before.C)
    without = here & ~expected.mask[rows]
    changed = (place.added != 0).any(dim=1)
    return found | {
        "added": relative_error(place.added, expected, corners=place.before.C),
        "zero_rows": 1 - float(changed.float().mean()),
        "changed_without_feature": int((changed & without).sum()),
    }


def _gate(seen: Seen) -> dict[str, float]:
    gate = seen.gate
    if gate is None or gate.before.shape != gate.after.shape:
        return {"not_called": 1.0}
    changed = (gate.after != gate.before).any(dim=1)
    return {
        "not_called": 0.0,
        "channels": gate.after.shape[1],
        "zero_rows": 1 - float(changed.float().mean()),
        "changed_without_feature": int((changed & ~gate.valid).sum()),
    }


def _of_places(subject: Subject, measured: Measured) -> Iterator[Check]:
    limits = subject.spec.checks
    for branch, stride in places_of(subject.spec.fusion):
        name = name_of(branch, stride)
        width = _width(subject.spec.model.backbone, branch, stride)
        for side in ("channels_before", "channels_after"):
            value, _ = largest(measured[f"{name}_{side}"])
            yield equal(STAGE, f"{name}_{side}", value, expected=width)
        yield _most(f"{name}_added", measured, limit=limits.max_level_error)
        yield _most(f"{name}_zero_rows", measured, limit=limits.max_empty_voxels)
        yield _zero(f"{name}_changed_without_feature", measured)
    if places_of(subject.spec.fusion):
        yield _zero("changed_elsewhere", measured)


def _of_gate(subject: Subject, measured: Measured) -> Iterator[Check]:
    yield _zero("bifusion_not_called", measured)
    value, _ = largest(measured["bifusion_channels"])
    yield equal(STAGE, "bifusion_channels", value, expected=subject.spec.model.backbone.planes[7])
    yield _most("bifusion_zero_rows", measured, limit=1 - subject.spec.checks.min_valid_ratio)
    yield _zero("bifusion_changed_without_feature", measured)


def _width(backbone: BackboneSpec, branch: Branch, stride: int) -> int:
    """Channels of the branch, from the numbers of the spec (docs/reference/esam.md, Places of injection)."""
    if branch == "stem":
        return backbone.stem_channels
    if stride == BOTTLENECK_STRIDE:
        return backbone.planes[3]
    stage = DECODER_STRIDES.index(stride)
    if branch == "up":
        return backbone.planes[4 + stage]
    return (*reversed(backbone.planes[:3]), backbone.stem_channels)[stage]


def _zero(name: str, measured: Measured) -> Check:
    value, frames = largest(measured[name])
    return equal(STAGE, name, value, expected=0, detail=frames if value else "")


def _most(name: str, measured: Measured, *, limit: float) -> Check:
    value, frames = largest(measured[name])
    return at_most(STAGE, name, value, limit=limit, detail=frames)
