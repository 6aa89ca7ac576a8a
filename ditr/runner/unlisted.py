"""Folders of what is not resumed: nothing lists them until they are whole, and they replace the same of before."""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ditr.errors import DitrError
from ditr.record.folder import RunFolder, RunState, find_run, now
from ditr.runner.plan import Planned
from ditr.runner.run import move_aside
from ditr.runner.stop import Interrupted

UNFINISHED = ".unfinished"
"""Folder in that of the runs, where they are until then."""


@dataclass(frozen=True)
class Stopwatch:
    """Runs from when it is made."""

    began: float = field(default_factory=time.monotonic)
    started_at: str = field(default_factory=now)

    def finished(self, planned: Planned, *, kind: Literal["eval", "check"], seed: int | None) -> RunState:
        """The state of what is whole now; nothing here is ever in another one."""
        return RunState(
            run_key=planned.key,
            spec_hash=planned.spec_hash,
            name=planned.spec.name,
            variant=planned.variant,
            seed=seed,
            kind=kind,
            state="finished",
            started_at=self.started_at,
            ended_at=now(),
            wall_s=round(time.monotonic() - self.began, 3),
        )


@contextmanager
def unlisted(runs: Path, *, name: str) -> Iterator[RunFolder]:
    """An empty folder to work in; it is gone afterwards, put in place or not.

    After an error that is neither a user's mistake nor a stop it stays, with the traceback, and a note on the error
    says where.
    """
    work = RunFolder(runs / UNFINISHED / f"{name}-{os.getpid()}")
    shutil.rmtree(work.path, ignore_errors=True)  # of a process that was killed, and had the same number
    work.path.mkdir(parents=True)
    try:
        yield work
    except Exception as error:
        if isinstance(error, DitrError | Interrupted):
            _remove(work)
            raise
        work.append_log(traceback.format_exc())
        error.add_note(f"traceback: {work.log_file}")
        raise
    except BaseException:
        _remove(work)
        raise
    _remove(work)


def put_in_place(work: RunFolder, final: RunFolder, *, key: str) -> str | None:
    """Renames the whole folder to ``final``, in place of the one with this key, whatever that was called.

    Returns where the old one is now; whatever goes wrong, it stays.
    """
    before = find_run(final.path.parent, key)
    kept = move_aside(before) if before else None
    try:
        work.path.rename(final.path)
    except OSError:
        if before and kept:
            Path(kept).rename(before.path)
        raise
    return kept


def _remove(work: RunFolder) -> None:
    shutil.rmtree(work.path, ignore_errors=True)
    with suppress(OSError):  # not empty: another process works beside
        work.path.parent.rmdir()
