"""What a folder of a known format holds: one scene, or one in each of its folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ditr.captures.scene import RawScene, safe_name
from ditr.errors import Code, DitrError


@dataclass(frozen=True, kw_only=True)
class Format:
    """How somebody's captures lie on the disk."""

    name: str
    description: str
    """In a few words, for help."""
    marks: tuple[str, ...]
    """Files or folders by which a scene of this format is known, below its own folder; ``*`` stands for anything."""
    read: Callable[[Path], RawScene]
    """The scene in a folder with these marks.

    Raises
    ------
    DitrError: what stands there cannot be understood.
    """

    def is_at(self, folder: Path) -> bool:
        """Whether a scene of the format is right here."""
        return folder.is_dir() and not self.lacking(folder)

    def lacking(self, folder: Path) -> tuple[str, ...]:
        """Marks that are not there."""
        return tuple(mark for mark in self.marks if not any(folder.glob(mark)))


def read_capture(folder: Path, *, format: Format, every: int = 1) -> tuple[RawScene, ...]:
    """The scenes of a folder, each of every so many of its frames, the first among them.

    Raises
    ------
    DitrError: there is none of this format, one cannot be understood, two have one name, or their images have different
        sizes or none has a frame.
    """
    folders = [folder] if format.is_at(folder) else [part for part in _folders(folder) if format.is_at(part)]
    if not folders:
        raise _not_there(folder, format)
    scenes = [format.read(part) for part in folders]
    if empty := [part for part, scene in zip(folders, scenes, strict=True) if not scene.frames]:
        raise DitrError("holds no frame", code=Code.DATASET, where=str(empty[0]), fix=_fix(format))
    _require_one_kind(scenes, folder)
    return tuple(replace(scene, frames=scene.frames[::every]) for scene in scenes)


def scene_name(folder: Path) -> str:
    """Of the scene in a folder.

    Raises
    ------
    DitrError: the folder's name has no letter or digit.
    """
    try:
        return safe_name(folder.resolve().name)
    except ValueError as error:
        fix = "rename the folder: its name becomes that of the scene"
        raise DitrError(str(error), code=Code.DATASET, where=str(folder), fix=fix) from error


def _folders(folder: Path) -> list[Path]:
    return sorted(part for part in folder.iterdir() if part.is_dir()) if folder.is_dir() else []


def _require_one_kind(scenes: Sequence[RawScene], folder: Path) -> None:
    names = [scene.name for scene in scenes]
    if twice := {name for name in names if names.count(name) > 1}:
        what = f"two folders make the scene {min(twice)!r}"
        raise DitrError(what, code=Code.DATASET, where=str(folder), fix="rename one of them")
    sizes = {(scene.camera.width, scene.camera.height): scene.name for scene in scenes}
    if len(sizes) > 1:
        each = ", ".join(f"{width}x{height} in {name}" for (width, height), name in sizes.items())
        fix = "import them one by one, as data sets of their own"
        raise DitrError(f"images of different sizes: {each}", code=Code.DATASET, where=str(folder), fix=fix)


def _not_there(folder: Path, format: Format) -> DitrError:
    if not folder.is_dir():
        what = "no such folder" if not folder.exists() else "this is a file"
        fix = f"unzip it: unzip {folder} -d {folder.stem}" if folder.is_file() else "name the folder of the capture"
        return DitrError(what, code=Code.DATASET, where=str(folder), fix=fix)
    what = f"neither it nor a folder in it holds {format.name}: {', '.join(format.lacking(folder))} missing"
    return DitrError(what, code=Code.DATASET, where=str(folder), fix=_fix(format))


def _fix(format: Format) -> str:
    return f"name a folder with {', '.join(format.marks)}; docs/data_format.md has every format"
