"""Stage 1, alignment: every map fits its own image, upright, and best just where the model takes it to lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from ditr.checks.image_agreement import (
    IN_PLACE,
    MIN_GRID,
    Shift,
    TokenContrast,
    agreement,
    looks_of,
    token_contrast,
)
from ditr.checks.measure import Measurements
from ditr.checks.point_grid import on_image
from ditr.checks.subject import Subject
from ditr.checks.tables import IMAGES, MAP_ALIGNMENT, NO_ALIGNMENT
from ditr.errors import DitrError
from ditr.progress import Progress
from ditr.spec.feature_maps import is_per_point, map_covers

_BESIDE = {
    "half a token higher": Shift(down=-0.5),
    "half a token lower": Shift(down=0.5),
    "half a token to the left": Shift(right=-0.5),
    "half a token to the right": Shift(right=0.5),
    "less tall": Shift(taller=-1),
    "taller": Shift(taller=1),
    "less wide": Shift(wider=-1),
    "wider": Shift(wider=1),
}
_FAR = (Shift(down=-2), Shift(down=2), Shift(right=-2), Shift(right=2))
_MIRRORED = {"upside down": (1,), "mirrored": (2,), "turned by half": (1, 2)}


def measure_alignment(subject: Subject, *, maps: Mapping[int, Tensor], progress: Progress) -> Iterator[Measurements]:
    """Needs no source. ``maps`` are those of some frames, by index; features of points are laid on the image."""
    contrasts: dict[int, TokenContrast] = {}
    looks: dict[int, Tensor] = {}
    images, read = Measurements(IMAGES), 0
    for index, tokens in maps.items():
        try:
            image = subject.frames.image(index)
        except DitrError as error:
            images.take("images_unreadable", 1, subject.frames.ids[index], note=error.what)
            continue
        read += 1
        if subject.entry is not None and is_per_point(subject.entry):
            tokens = on_image(tokens, subject.frames.frame(index))
        covered = _covered(subject) or (image.shape[0], image.shape[1])
        contrast = token_contrast(tokens, map_hw=covered, image_hw=(image.shape[0], image.shape[1]))
        if contrast is not None:
            contrasts[index], looks[index] = contrast, looks_of(image)
    yield images
    yield _compared(subject, contrasts, looks, progress=progress) if contrasts else _not_compared(small=read > 0)


def _not_compared(*, small: bool) -> Measurements:
    """Of maps that are too ``small`` to be compared nothing can be said; where there are none, that is a failure."""
    found = Measurements(NO_ALIGNMENT)
    why = f"no map has {MIN_GRID} x {MIN_GRID} tokens within its image" if small else "no map could be read"
    found.take("own_image", small, note=f"not measured: {why}")
    return found


def _covered(subject: Subject) -> tuple[int, int] | None:
    """What a map covers, where that is more than the image."""
    spec = subject.spec.read_features
    if spec is not None and subject.entry is not None:
        return map_covers(spec, subject.entry)
    return spec.input_size if spec is not None and spec.resize == "pad" else None


def _compared(
    subject: Subject, contrasts: Mapping[int, TokenContrast], looks: Mapping[int, Tensor], *, progress: Progress
) -> Measurements:
    found, ids, misfits = Measurements(MAP_ALIGNMENT), subject.frames.ids, []
    for done, (index, contrast) in enumerate(contrasts.items()):
        progress("maps and images", done, len(contrasts))
        own = agreement(contrast, looks[index])
        others = {f"the image of {ids[other]}": agreement(contrast, looks[other]) for other in looks if other != index}
        others |= {f"its image {how}": agreement(contrast, looks[index].flip(axes)) for how, axes in _MIRRORED.items()}
        others |= {
            f"its image {far.down:g} tokens down, {far.right:g} right": agreement(contrast, looks[index], shift=far)
            for far in _FAR
        }
        best = max(others, key=lambda one: others[one])
        if not own >= others[best]:
            misfits.append(f"the map of {ids[index]} fits {best} ({others[best]:.3f}) better than its own ({own:.3f})")
    progress("maps and images", len(contrasts), len(contrasts))
    note = misfits[0] if misfits else f"{len(contrasts)} maps, {len(looks)} images"
    found.take("own_image", 1 - len(misfits) / len(contrasts), note=note)
    value, best = _alignment(contrasts, looks)
    found.take("map_alignment", value, note=f"best but for in place: {best}")
    return found


def _alignment(contrasts: Mapping[int, TokenContrast], looks: Mapping[int, Tensor]) -> tuple[float, str]:
    """How well the best place beside fits, and which it is: all frames together, as single ones are too little to tell
    half a token."""

    def total(shift: Shift) -> float:
        return sum(agreement(contrast, looks[index], shift=shift) for index, contrast in contrasts.items())

    own = total(IN_PLACE)
    beside = {where: total(shift) for where, shift in _BESIDE.items()}
    best = max(beside, key=lambda one: beside[one])
    return beside[best] / own if own > 0 else float("nan"), best
