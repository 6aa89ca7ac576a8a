"""Image files of a capture: by their numbers, their sizes, and whether each has what belongs to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ditr.errors import Code, DitrError

COLOUR = ("*.jpg", "*.jpeg", "*.png")


def image_size(path: Path) -> tuple[int, int]:
    """Width and height, of the head of the file; DitrError if it is missing or damaged."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # what Pillow raises of damaged bytes is not to be listed
        what = "no such file" if isinstance(error, FileNotFoundError) else f"the image is damaged ({error})"
        raise DitrError(what, code=Code.DATASET, where=str(path), fix="export the capture again") from error


def by_number(folder: Path, *patterns: str) -> dict[int, Path]:
    """The files of a folder by the last whole number in their names, ascending; those without one are passed over.

    Parameters
    ----------
    patterns: what names look like, such as ``*.png``; colour images without any.
    """
    files = (path for pattern in patterns or COLOUR for path in folder.glob(pattern))
    numbered = ((re.findall(r"\d+", path.stem), path) for path in files)
    return dict(sorted((int(numbers[-1]), path) for numbers, path in numbered if numbers))


def require_images(folder: Path, *, colour: Sequence[Path], lacking: Sequence[Path], fix: str) -> None:
    """Raises DitrError if there are no colour images, or some of them lack their depth or their pose."""
    if not colour:
        raise DitrError("no colour image", code=Code.DATASET, where=str(folder), fix="export the capture again")
    if lacking:
        what = f"{len(lacking)} of {len(colour)} images have no depth or no pose, the first is {lacking[0].name}"
        raise DitrError(what, code=Code.DATASET, where=str(folder), fix=fix)
