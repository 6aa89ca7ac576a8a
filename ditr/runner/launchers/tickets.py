"""What is known of jobs beside the records, in ``.jobs`` of the folder of runs: which runs wait, and where for.

Of a run with the key K there are ``K.json``, the ticket that its launcher wrote; ``K.stop``, which asks its job to save
and stop; and ``K.end.json``, how its job ended. All are small, replaced whole, and of no use when they are gone.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ditr.files import write_json
from ditr.record.state import now
from ditr.runner.launchers import Ending
from ditr.runner.plan import PlannedRun

JOBS = ".jobs"
"""Folder in that of the records."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="ignore"))
class Ticket:
    """Of a run that was given to a launcher."""

    key: str
    name: str
    """Of the run's folder."""
    variant: str
    seed: int
    launcher: str
    job: str
    """As the scheduler calls it; empty where there is none."""
    holder: str
    """Of the command that the job ends with; empty for one that outlives it."""
    at: str
    """When it was given, ISO 8601, UTC."""


_TICKET, _ENDING = TypeAdapter(Ticket), TypeAdapter(Ending)


class JobFiles:
    """Those of one folder of runs."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.folder = runs / JOBS

    def give(self, run: PlannedRun, *, launcher: str, job: str = "", holder: str = "") -> None:
        """Writes the run's ticket."""
        ticket = Ticket(
            key=run.key,
            name=run.folder.path.name,
            variant=run.variant,
            seed=run.seed,
            launcher=launcher,
            job=job,
            holder=holder,
            at=now(),
        )
        self.folder.mkdir(exist_ok=True)
        write_json(self._ticket(run.key), asdict(ticket))

    def tickets(self) -> tuple[Ticket, ...]:
        """All, in the order in which they were given; one that cannot be read is none."""
        found = []
        for path in self.folder.glob("*.json") if self.folder.is_dir() else ():
            if not path.name.endswith(".end.json"):
                with suppress(OSError, ValidationError):
                    found.append(_TICKET.validate_json(path.read_bytes()))
        return tuple(sorted(found, key=lambda ticket: (ticket.at, ticket.name)))

    def forget(self, keys: Sequence[str]) -> None:
        """Removes all of these runs."""
        for key in keys:
            for path in (self._ticket(key), self._stop(key), self.ending_file(key)):
                path.unlink(missing_ok=True)

    def ask_to_stop(self, key: str) -> None:
        """A job of this run saves and stops when it sees that."""
        self.folder.mkdir(exist_ok=True)
        self._stop(key).touch()

    def is_asked_to_stop(self, key: str) -> bool:
        return self._stop(key).exists()

    def note_ending(self, key: str, ending: Ending) -> None:
        write_json(self.ending_file(key), asdict(ending))

    def ending(self, key: str) -> Ending | None:
        """None until the job has noted it."""
        with suppress(OSError, ValidationError):
            return _ENDING.validate_json(self.ending_file(key).read_bytes())
        return None

    @contextmanager
    def holding(self) -> Iterator[str]:
        """The name of a holder, whose tickets hold as long as this process is in the block; what killed ones left
        goes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._forget_killed()
        name = f"{socket.gethostname()}-{os.getpid()}"
        path = self._holder(name)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield name
            finally:
                path.unlink(missing_ok=True)

    def is_held(self, holder: str) -> bool:
        """Whether the command of this name is still there."""
        try:
            with self._holder(holder).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _forget_killed(self) -> None:
        self.forget([ticket.key for ticket in self.tickets() if ticket.holder and not self.is_held(ticket.holder)])
        for path in self.folder.glob("*.holder"):
            if not self.is_held(path.stem):
                path.unlink(missing_ok=True)

    def _ticket(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def ending_file(self, key: str) -> Path:
        return self.folder / f"{key}.end.json"

    def _stop(self, key: str) -> Path:
        return self.folder / f"{key}.stop"

    def _holder(self, name: str) -> Path:
        return self.folder / f"{name}.holder"
