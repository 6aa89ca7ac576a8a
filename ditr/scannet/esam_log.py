"""A training of ESAM by its text log or vis_data/scalars.json of mmengine (docs/reference/esam.md, NaN; Schedule)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import mode

from ditr.errors import Code, DitrError
from ditr.scannet.mmengine_reader import Kind, Reader, Session, Validation, Window

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""In what a terminal was shown."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the head of a text log says; None for what it does not, and for all in scalars."""

    experiment: str | None
    """Name with the time it began at."""
    load_from: str | None
    max_epochs: int | None
    batch_size: int | None
    seed: int | None
    device: str | None
    """Name of the GPU, or of every kind there was."""
    gpus: int | None
    """GPUs that trained."""
    torch: str | None


@dataclass(frozen=True, kw_only=True)
class EsamLog:
    """One training, or one test of given weights."""

    path: Path
    sha256: str
    lines: int
    kind: Kind
    windows: tuple[Window, ...]
    validations: tuple[Validation, ...]
    facts: Facts
    """Of the session that began what is left after all resuming."""
    sessions: int
    superseded: int
    """Windows and validations that a later session did again, or that lie on a continuation it abandoned."""
    cut: int
    """Lines that begin or end like a record and are none: cut off, or written into each other."""
    steps_per_epoch: int | None
    started: datetime | None
    """In the time zone of the machine that trained, which no log names."""
    seconds: float | None
    """Of all sessions; from scalars, iterations times their mean time; None where neither is there."""

    @property
    def epochs_done(self) -> int | None:
        """Epochs trained to their end; None where that cannot be told."""
        validated = max((one.epoch or 0 for one in self.validations), default=0)
        if not self.windows or self.steps_per_epoch is None:
            return validated or None
        last = self.windows[-1]
        left = last.epoch * self.steps_per_epoch - last.step
        # mmengine leaves out the window at an epoch's end that is not full.
        return max(validated, last.epoch if left < _interval(self.windows) else last.epoch - 1)

    def step_of(self, validation: Validation) -> int:
        """The end of its epoch; where that is unknown, the last window up to there."""
        if validation.epoch is not None and self.steps_per_epoch is not None:
            return validation.epoch * self.steps_per_epoch
        steps = (one.step for one in self.windows if validation.epoch is None or one.epoch <= validation.epoch)
        return max(steps, default=0)


def read_esam_log(path: Path) -> EsamLog:
    """Reads either file; which it is shows in its content.

    Raises
    ------
    DitrError: the file is missing, or holds no whole record of an mmengine training.
    """
    content = _content(path)
    reader = Reader()
    lines = _COLOUR.sub("", content.decode("utf-8", errors="replace")).splitlines()
    for line in lines:
        reader.line(line)
    windows, validations = reader.windows, reader.validations
    if not windows and not validations:
        raise _foreign(path, cut=reader.cut)
    timed = [one for one in reader.sessions if one.first]
    return EsamLog(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        lines=len(lines),
        kind=reader.kind,
        windows=windows,
        validations=validations,
        facts=_facts(reader.begun_in),
        sessions=sum(one.records > 0 for one in reader.sessions),
        superseded=reader.superseded,
        cut=reader.cut,
        steps_per_epoch=reader.steps_per_epoch or _steps_per_epoch(windows),
        started=reader.begun_in.first if reader.dated else None,
        seconds=sum(one.seconds() for one in timed) if timed else _sum_of_times(windows),
    )


def _content(path: Path) -> bytes:
    if path.is_dir():
        names = sorted({*path.glob("**/*.log"), *path.glob("**/vis_data/scalars.json")})
        fix = f"Name one of its files, such as {names[0]}" if names else "Name a file."
        raise DitrError("a folder, not a log", code=Code.RUN, where=str(path), fix=fix)
    if not path.is_file():
        raise DitrError("no such file", code=Code.RUN, where=str(path), fix="Name mmengine's log of a training.")
    with path.open("rb") as file:
        if b"\0" in file.read(4096):
            raise _foreign(path, cut=0)
    return path.read_bytes()


def _foreign(path: Path, *, cut: int) -> DitrError:
    if not path.stat().st_size:
        what = "the file is empty"
    elif cut:
        what = f"no whole record of a training or validation in it, and {cut} that are cut off"
    else:
        what = "no record of a training or validation by mmengine in it"
    fix = "Name the .log file in work_dirs/<config>/<time>/, or the scalars.json in its folder vis_data."
    return DitrError(what, code=Code.RUN, where=str(path), fix=fix)


def _facts(session: Session) -> Facts:
    found = session.facts

    def number(name: str) -> int | None:
        return int(found[name]) if name in found else None

    return Facts(
        experiment=found.get("experiment"),
        load_from=found.get("load_from"),
        max_epochs=number("max_epochs"),
        batch_size=number("batch_size"),
        seed=number("seed"),
        device=found.get("device"),
        gpus=number("gpus"),
        torch=found.get("torch"),
    )


def _steps_per_epoch(windows: Iterable[Window]) -> int | None:
    """From the first windows of epochs that follow each other; None if only one epoch is there."""
    first: dict[int, int] = {}
    for window in windows:
        first.setdefault(window.epoch, window.step)
    apart = [first[epoch + 1] - step for epoch, step in first.items() if epoch + 1 in first]
    return mode(apart) if apart else None


def _interval(windows: Sequence[Window]) -> int:
    """Iterations a window."""
    apart = [after.step - before.step for before, after in pairwise(windows) if after.epoch == before.epoch]
    return mode(apart) if apart else windows[0].step


def _sum_of_times(windows: Sequence[Window]) -> float | None:
    """Iterations that no window holds, at the ends of epochs, count with the window after them."""
    if not windows or any("time" not in window.values for window in windows):
        return None
    first = min(windows[0].step, _interval(windows))
    iterations = [first, *(after.step - before.step for before, after in pairwise(windows))]
    return sum(count * window.values["time"] for count, window in zip(iterations, windows, strict=True))
