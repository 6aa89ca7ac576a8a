"""Stage 1, places: every map fits its own image, upright, and best just where the model takes it to lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from ditr.checks.image_agreement import (
    IN_PLACE,
    MIN_GRID,
    Place,
    TokenContrast,
    agreement,
    looks_of,
    token_contrast,
)
from ditr.checks.outcome import Check, Subject, at_least, at_most, yes_or_no
from ditr.errors import DitrError
from ditr.progress import Progress
from ditr.spec.feature_maps import map_covers

_BESIDE = {
    "half a token higher": Place(down=-0.5),
    "half a token lower": Place(down=0.5),
    "half a token to the left": Place(right=-0.5),
    "half a token to the right": Place(right=0.5),
    "less tall": Place(taller=-1),
    "taller": Place(taller=1),
    "less wide": Place(wider=-1),
    "wider": Place(wider=1),
}
_FAR = (Place(down=-2), Place(down=2), Place(right=-2), Place(right=2))
_MIRRORED = {"upside down": (1,), "mirrored": (2,), "turned by half": (1, 2)}


def check_places(subject: Subject, *, maps: Mapping[int, Tensor], progress: Progress) -> Iterator[Check]:
    """Needs no source. ``maps`` are those of some frames, by index."""
    contrasts: dict[int, TokenContrast] = {}
    looks: dict[int, Tensor] = {}
    unseen = []
    for index, tokens in maps.items():
        try:
            image = subject.frames.image(index)
        except DitrError as error:
            unseen.append(f"{subject.frames.ids[index]}: {error.what}")
            continue
        covered = _covered(subject) or (image.shape[0], image.shape[1])
        contrast = token_contrast(tokens, map_hw=covered, image_hw=(image.shape[0], image.shape[1]))
        if contrast is not None:
            contrasts[index], looks[index] = contrast, looks_of(image)
    yield at_most(1, "images_unreadable", len(unseen), limit=0, detail="; ".join(unseen[:1]))
    if not contrasts:
        small = len(unseen) < len(maps)
        detail = f"no map has {MIN_GRID} x {MIN_GRID} tokens within its image" if small else "no map could be read"
        yield yes_or_no(1, "own_image", small, limit="reported", detail=f"not measured: {detail}")
        return
    yield _own_image(subject, contrasts, looks, progress=progress)
    yield _alignment(contrasts, looks, limit=subject.spec.checks.max_fit_beside)


def _covered(subject: Subject) -> tuple[int, int] | None:
    """What a map covers, where that is more than the image."""
    spec = subject.spec.read_features
    if spec is not None and subject.entry is not None:
        return map_covers(spec, subject.entry)
    return spec.input_size if spec is not None and spec.resize == "pad" else None


def _own_image(
    subject: Subject, contrasts: Mapping[int, TokenContrast], looks: Mapping[int, Tensor], *, progress: Progress
) -> Check:
    ids, misfits = subject.frames.ids, {}
    for done, (index, contrast) in enumerate(contrasts.items()):
        progress("maps and images", done, len(contrasts))
        own = agreement(contrast, looks[index])
        others = {f"the image of {ids[other]}": agreement(contrast, looks[other]) for other in looks if other != index}
        others |= {f"its image {how}": agreement(contrast, looks[index].flip(axes)) for how, axes in _MIRRORED.items()}
        others |= {
            f"its image {far.down:g} tokens down, {far.right:g} right": agreement(contrast, looks[index], place=far)
            for far in _FAR
        }
        best = max(others, key=lambda one: others[one])
        if not own >= others[best]:
            misfits[ids[index]] = (
                f"the map of {ids[index]} fits {best} ({others[best]:.3f}) better than its own ({own:.3f})"
            )
    progress("maps and images", len(contrasts), len(contrasts))
    share = 1 - len(misfits) / len(contrasts)
    fix = "a map of another image, or with its tokens in another order: extract again"
    detail = next(iter(misfits.values()), f"{len(contrasts)} maps, {len(looks)} images")
    return at_least(1, "own_image", share, limit=subject.spec.checks.min_own_image, detail=detail, fix=fix)


def _alignment(contrasts: Mapping[int, TokenContrast], looks: Mapping[int, Tensor], *, limit: float) -> Check:
    """All frames together, as single ones are too little to tell half a token."""

    def total(place: Place) -> float:
        return sum(agreement(contrast, looks[index], place=place) for index, contrast in contrasts.items())

    own = total(IN_PLACE)
    beside = {where: total(place) for where, place in _BESIDE.items()}
    best = max(beside, key=lambda one: beside[one])
    value = beside[best] / own if own > 0 else float("nan")
    fix = "correct resize or input_size of the spec, or covers of the registry entry"
    return at_most(1, "map_alignment", value, limit=limit, detail=f"best but for in place: {best}", fix=fix)
