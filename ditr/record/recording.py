"""A record's life: begin, write, finish. Views are told afterwards, and nothing here waits for them.

A training's record lies in its place from the beginning, so that it can go on after a stop. What does not go on (an
evaluation, a check, an imported log) is written as a draft that nothing lists, and takes its place when it is whole.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from ditr.errors import Code, DitrError, Interrupted
from ditr.files import abandoned, claiming, unfinished_in
from ditr.paths import portable_text
from ditr.record.folder import Record, find_record, unwritable
from ditr.record.state import Kind, RecordState, State, now

DRAFTS = ".unfinished"
"""Folder in that of the records, where drafts are."""
REPLACED = ".replaced"
"""Folder in that of the records, where those are that another one took the place of."""
_CLAIM = ".claim"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which record it is."""

    run_key: str
    """Of all that decides its numbers; the same key takes the same place."""
    spec_hash: str
    name: str
    variant: str
    seed: int | None
    kind: Kind

    def starting(self) -> RecordState:
        """The state of such a record that begins now."""
        return RecordState(**vars(self), started_at=now())


class Recording:
    """The record of a training while this process, which holds its lock, writes it."""

    def __init__(self, folder: Record, state: RecordState) -> None:
        self.folder = folder
        self.state = state
        self._since = time.monotonic()

    def note_steps(self, steps: int) -> None:
        """Says how many updates the whole training has."""
        self._write(replace(self.state, steps=steps))

    def finish(self, how: State, *, error: str | None = None) -> RecordState:
        """Says how this session ended; the time that it took is added to that of those before."""
        took = round((self.state.wall_s or 0.0) + time.monotonic() - self._since, 3)
        said = None if error is None else portable_text(error)
        self._write(replace(self.state, state=how, error=said, ended_at=now(), wall_s=took))
        return self.state

    def _write(self, state: RecordState) -> None:
        self.state = self.folder.set_state(state)


def begin(folder: Record, identity: Identity, *, pid: int | None = None) -> Recording:
    """Begins the record, or goes on with it: its start and the time of its sessions stay, what a crash left goes.

    ``pid`` is the process to signal, if it is not this one.

    Raises
    ------
    UnreadableRecord: what earlier sessions left of it cannot be read.
    DitrError: a link in it leads out of it.
    """
    _require_own_files(folder)
    state = folder.state() or identity.starting()
    (folder.path / "checkpoints").mkdir(parents=True, exist_ok=True)
    for left in unfinished_in(folder.path):
        left.unlink()
    folder.drop_cut_line()
    mine = replace(state, state="running", ended_at=None, error=None, pid=pid or os.getpid(), host=socket.gethostname())
    return Recording(folder, folder.set_state(mine))


def _require_own_files(folder: Record) -> None:
    """A record may come from somebody else: what is written through a link in it is written outside of it."""
    own = os.path.realpath(folder.path)
    for path, folders, files in os.walk(folder.path):  # which follows no link
        for link in (Path(path) / name for name in (*folders, *files)):
            if link.is_symlink() and not Path(os.path.realpath(link)).is_relative_to(own):
                what = "this link leads out of the record, so a run would write outside of it"
                fix = "Replace the link by what it leads to, or remove it."
                raise DitrError(what, code=Code.RUN, where=str(link), fix=fix)


def move_aside(folder: Record) -> Path:
    """Puts the record where no command lists it; returns where."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    aside = folder.path.parent / REPLACED / f"{folder.path.name}-{stamp}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    folder.path.rename(aside)
    return aside


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A draft that has become a record."""

    folder: Record
    replaced: Path | None
    """Where the same of before is now; None if there was none."""


@dataclass(frozen=True)
class Draft:
    """A record that nothing lists yet."""

    folder: Record
    runs: Path
    _started_at: str = field(default_factory=now)
    _since: float = field(default_factory=time.monotonic)

    def state(self, identity: Identity) -> RecordState:
        """Of a record that began with the draft and is whole now."""
        took = round(time.monotonic() - self._since, 3)
        started = replace(identity.starting(), started_at=self._started_at)
        return replace(started, state="finished", ended_at=now(), wall_s=took)

    def finish(self, state: RecordState) -> Placement:
        """Renames the draft, which is whole, to its place; the record with its key that lies there goes aside.

        Whatever goes wrong, the one of before stays.

        Raises
        ------
        DitrError: another process writes that record.
        """
        final = Record(self.runs / f"{state.name}-{state.kind}-{state.run_key}")
        self.folder.set_state(state)
        with final.lock():
            before = find_record(self.runs, state.run_key)
            aside = move_aside(before) if before else None
            try:
                self.folder.path.rename(final.path)
            except OSError:
                if before and aside:
                    aside.rename(before.path)
                raise
        return Placement(folder=final, replaced=aside)


@contextmanager
def draft(runs: Path, *, name: str) -> Iterator[Draft]:
    """An empty folder to write a record in; it is gone afterwards, whether the record was finished or not, and so are
    drafts of processes that were killed.

    After an error that is neither a user's mistake nor a stop it stays, with the traceback, and a note on the error
    says where.

    Raises
    ------
    DitrError: nothing can be written there.
    """
    folder = Record(runs / DRAFTS / f"{name}-{os.getpid()}")
    with ExitStack() as claim:
        try:
            with _lock(runs):
                _sweep(runs)
                shutil.rmtree(folder.path, ignore_errors=True)  # of a process that had the same number
                folder.path.mkdir(parents=True)
                claim.enter_context(claiming(_claim_of(folder)))
        except OSError as error:
            raise unwritable(folder.path, error) from error
        try:
            yield Draft(folder, runs)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, DitrError | Interrupted):
                folder.append_log(traceback.format_exc())
                error.add_note(f"traceback: {folder.log_file}")
                _claim_of(folder).unlink()  # it is to be looked at
            else:
                _remove(folder, runs)
            raise
        _remove(folder, runs)


def _claim_of(folder: Record) -> Path:
    """The file that a draft's process holds: beside the draft, which takes its place without it."""
    return folder.path.with_name(f".{folder.path.name}{_CLAIM}")


def _sweep(runs: Path) -> None:
    """Removes drafts whose processes died; for who holds the lock of drafts."""
    for claim in (runs / DRAFTS).glob(f".*{_CLAIM}"):
        with abandoned(claim) as dead:
            if dead:
                shutil.rmtree(claim.with_name(claim.name.removeprefix(".").removesuffix(_CLAIM)), ignore_errors=True)
                claim.unlink()


def _remove(folder: Record, runs: Path) -> None:
    with _lock(runs):
        shutil.rmtree(folder.path, ignore_errors=True)
        _claim_of(folder).unlink(missing_ok=True)
        with suppress(OSError):  # not empty: another process works beside
            folder.path.parent.rmdir()


def _lock(runs: Path) -> FileLock:
    """Of the folder of drafts."""
    locks = runs / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / "drafts.lock")
