"""What can be removed of a folder of records: some by name, those that were replaced, what killed processes left."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ditr.errors import Code, DitrError
from ditr.files import unfinished_in
from ditr.record.folder import Record, records_in, unwritable
from ditr.record.recording import DRAFTS, REPLACED

_JOB_OUTPUT = re.compile(r"\.(.+)\.job\.txt")
"""What a job wrote that died without a word in its record; the group is the record's name."""


@dataclass(frozen=True, kw_only=True)
class RemovableItem:
    """A file or folder."""

    path: Path
    what: str
    """In words, such as ``finished run``."""
    size_bytes: int

    def remove(self) -> None:
        """Removes it; DitrError if that cannot be."""
        try:
            if self.path.is_dir() and not self.path.is_symlink():
                shutil.rmtree(self.path)
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(self.path, error) from error


def records_called(runs: Path, names: Sequence[str]) -> tuple[RemovableItem, ...]:
    """The records whose folders are called so, each once; a path has to lead there.

    Raises
    ------
    DitrError: there is none of that name, a path leads elsewhere, or a process writes it.
    """
    found = {folder.path.name: folder for folder in records_in(runs)}
    for path in map(Path, names):
        if len(path.parts) > 1 and path.resolve().parent != runs.resolve():
            fix = f"Only records of {runs} are removed; DITR_RUNS names another folder."
            raise DitrError("this is no record of the folder of runs", code=Code.RUN, where=str(path), fix=fix)
    chosen = dict.fromkeys(Path(name).name for name in names)
    for name in chosen:
        if name not in found:
            close = difflib.get_close_matches(name, found, n=3)
            guess = f"; did you mean {' or '.join(close)}?" if close else ""
            fix = "Name folders of `ditr ls`."
            raise DitrError(f"no record is called '{name}'{guess}", code=Code.RUN, where=str(runs), fix=fix)
        if found[name].is_locked():
            fix = "Stop it first, or wait for it."
            raise DitrError("a process runs this now", code=Code.RUN, where=str(found[name].path), fix=fix)
    return tuple(removable(found[name].path, what=_kind_of(found[name])) for name in chosen)


def replaced_records(runs: Path) -> tuple[RemovableItem, ...]:
    """Those that another one took the place of."""
    folder = runs / REPLACED
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return tuple(removable(path, what=f"replaced {_kind_of(Record(path))}") for path in found)


def unfinished_work(runs: Path) -> tuple[RemovableItem, ...]:
    """Drafts, half-written files and outputs of jobs whose processes are gone."""
    return tuple(removable(path, what=what) for path, what in _unfinished(runs))


def _unfinished(runs: Path) -> Iterator[tuple[Path, str]]:
    drafts = runs / DRAFTS
    for path in sorted(drafts.iterdir()) if drafts.is_dir() else []:
        if not is_alive(path.name.rpartition("-")[2]):
            yield path, "unfinished draft"
    for path, process in unfinished_in(runs).items():
        if drafts not in path.parents and not is_alive(str(process)):
            yield path, "half-written file"
    for path in sorted(runs.glob(".*.job.txt")):
        named = _JOB_OUTPUT.fullmatch(path.name)
        if named is not None and not Record(runs / named[1]).is_locked():
            yield path, "output of a job that died"


def is_alive(pid: str) -> bool:
    """Whether a process has this number; what other numbers mean nobody knows, so they count as alive."""
    if not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _kind_of(folder: Record) -> str:
    try:
        state = folder.state()
    except DitrError:
        return "unreadable record"
    return f"{state.state} {state.kind}" if state else "record without a state"


def removable(path: Path, *, what: str) -> RemovableItem:
    """The file, folder or link with what it takes on the disk."""
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return RemovableItem(path=path, what=what, size_bytes=sum(file.lstat().st_size for file in files))
