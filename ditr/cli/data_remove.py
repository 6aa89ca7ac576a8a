"""``ditr data rm``: what imports made of captures; never what a user brought."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock, Timeout

from ditr.catalog import locate_dataset
from ditr.cli.remove import ask
from ditr.cli.tables import text_table
from ditr.errors import Code, DitrError
from ditr.record.removal import RemovableItem, removable
from ditr.spec.entries import FolderEntry
from ditr.spec.registry import Registry


def register(group: typer.Typer) -> None:
    """Adds the command to ``ditr data``."""
    group.command("rm")(remove)


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set of `ditr data ls`.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a data set that was imported, folder and entry, for good; what is to go is said first, with its size.

    The capture stays, and so does all that the import did not make.
    """
    from ditr.captures.prepare import LOCK

    entry_file, root, infos = _imported(name)
    with _alone(root, root / LOCK):
        things = [*_made(root, infos), removable(entry_file, what="entry")]
        rows = [(thing.what, f"{thing.size_bytes / 2**20:.1f}", thing.path) for thing in things]
        typer.echo(text_table(("what", "MiB", "path"), rows), nl=False)
        if not yes:
            ask(len(things))
        for thing in things:
            thing.remove()
    if root.is_dir():
        (root / LOCK).unlink(missing_ok=True)
        if any(root.iterdir()):
            typer.echo(f"{root} holds more, which no import made: it stays")
        else:
            root.rmdir()
    typer.echo(f"removed {name}, {sum(thing.size_bytes for thing in things) / 2**20:.1f} MiB")


def _imported(name: str) -> tuple[Path, Path, tuple[str, ...]]:
    """The entry's file, the folder, and the names of its info pickles; DitrError where no import made them."""
    from ditr.data.prepared import PREPARED

    registry = Registry()
    entry, file = registry.dataset(name), registry.file("datasets", name)
    root = locate_dataset(name, entry)
    known = isinstance(entry, FolderEntry) and (entry.imported or (root / PREPARED).is_file())
    if not known or file.parent.parent != registry.folders[0]:
        what, fix = f"{name!r} was not imported, and is not removed", "remove by hand what you brought"
        raise DitrError(what, code=Code.DATASET, where=str(file), fix=fix)
    if root.is_dir() and any(root.iterdir()) and not (root / PREPARED).is_file():
        what = f"there are files but no {PREPARED}: no import made them"
        raise DitrError(what, code=Code.DATASET, where=str(root), fix=f"remove {file} and the folder by hand")
    assert isinstance(entry, FolderEntry)
    return file, root, tuple(entry.infos.values())


def _made(root: Path, infos: tuple[str, ...]) -> Iterator[RemovableItem]:
    """What the import made, of what there is. Images of ScanNet are no import's, but may be where it prepared."""
    from ditr.captures.files import FOLDERS
    from ditr.captures.manifest import is_of_capture
    from ditr.data.prepared import PREPARED
    from ditr.scannet.prepare import LINKED

    if not (root / PREPARED).is_file():
        return
    folders = (*FOLDERS, "2D") if is_of_capture(root) else FOLDERS
    for name in (*folders, *infos, PREPARED):
        if (path := root / name).exists():
            yield removable(path, what="folder" if path.is_dir() else "file")
    for name in LINKED:
        if (path := root / name).is_symlink():
            yield removable(path, what="link")


@contextmanager
def _alone(root: Path, lock: Path) -> Iterator[None]:
    """While no import works on the folder, if there is one."""
    if not root.is_dir():
        yield
        return
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout as error:
        what, fix = "an import works on this folder", "wait until it is done"
        raise DitrError(what, code=Code.DATASET, where=str(root), fix=fix) from error
