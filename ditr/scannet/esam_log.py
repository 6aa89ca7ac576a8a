"""A training of ESAM by what mmengine wrote of it: its text log, or vis_data/scalars.json
(docs/reference/esam.md, NaN; Schedule).

A resumed training repeats epochs: what a later session did again counts as it was done last, and what an abandoned
continuation did beyond that point goes with it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, pairwise
from pathlib import Path
from statistics import mean, mode

from ditr.errors import Code, DitrError
from ditr.files import decode_text

AP_NAMES = frozenset({"all_ap", "all_ap_50%", "all_ap_25%"})

_TIME_FORMAT = "%Y/%m/%d %H:%M:%S"
_HEAD = r"(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - mmengine - [A-Z]+ -"
_SESSION = re.compile(rf"(?={_HEAD.replace('(', '(?:', 1)}\s*\n-+\nSystem environment:)")
_RECORD = re.compile(
    rf"{_HEAD} (?:Epoch|Iter)\((train|val|test)\)\s*(?:\[\s*(\d+)\])?\[\s*(\d+)/(\d+)\]"
    r"\s*(?:(.*?)eta: (?:\d+ days?, )?[\d:]+)?(.*)$"
)
_PAIR = re.compile(r"(?<!\S)(\S+): (-?\d+\.\d{4}(?:e[+-]\d\d)?(?!\S)|nan(?!\S)|-?inf(?!\S)|\d+(?=  ))")
"""mmengine prints four decimals; what has fewer was cut off, as an integer at the end of a line may have been."""
_FACTS = {
    "experiment": r"Exp name: (\S+)",
    "load_from": r"^load_from = '(.+)'",
    "max_epochs": r"^train_cfg = dict\([^()]*?\bmax_epochs=(\d+)",
    "batch_size": r"^train_dataloader = dict\([^()]*?\bbatch_size=(\d+)",
    "seed": r"^\s*seed: (\d+)",
    "device": r"^\s*GPU [\d,]+: (.+?)\s*$",
    "gpus": r"^\s*GPU number: (\d+)",
    "torch": r"^\s*PyTorch: (\S+)",
}
"""What a session's head says of environment and configuration."""


@dataclass(frozen=True, kw_only=True)
class LogRecord:
    """A window of training (means since the window before), or a validation."""

    is_window: bool
    epoch: int | None
    """From 1, or of a validation the epochs done; None where iterations are counted, and of a test of given weights."""
    step: int | None
    """Of a window the iterations since the training began, up to its last."""
    values: Mapping[str, float]
    """As the log names them; NaN where one of the iterations was."""
    at: datetime | None = None
    batches: int | None = None
    """Of the epoch, or of the validation; scalars do not say."""

    @property
    def place(self) -> tuple[float, float]:
        """Orders records as a training makes them."""
        return self.epoch or math.inf, math.inf if self.step is None else self.step


@dataclass(frozen=True, kw_only=True)
class EsamLog:
    """One training, or one test of given weights."""

    sha256: str
    kind: str
    """``text log`` or ``scalars``."""
    windows: tuple[LogRecord, ...]
    validations: tuple[LogRecord, ...]
    facts: Mapping[str, str]
    """By the names of ``_FACTS``, of the session that began what is left; empty of scalars."""
    sessions: int
    superseded: int
    """Records that a later session made again, or that lie on a continuation it abandoned."""
    cut: int
    """Lines that are a record's and not whole."""
    started: datetime | None
    """Of that session, in the time zone of the machine that trained, which no log names."""
    seconds: float | None
    """Of all sessions; of scalars, iterations times their mean time."""
    steps_per_epoch: int | None
    """Unknown of scalars of one epoch."""

    @property
    def epochs_done(self) -> int | None:
        """Epochs trained to their end; None where that cannot be told."""
        validated = max((one.epoch or 0 for one in self.validations), default=0)
        if not self.windows or self.steps_per_epoch is None:
            return validated or None
        epoch, step = self.windows[-1].place
        # mmengine leaves out the window at an epoch's end that is not full.
        ended = epoch * self.steps_per_epoch - step < _window_length(self.windows)
        return max(validated, int(epoch) - (not ended))

    def step_of(self, validation: LogRecord) -> int:
        """The end of its epoch; where that is unknown, the last window up to there."""
        if validation.epoch is not None and self.steps_per_epoch is not None:
            return validation.epoch * self.steps_per_epoch
        return max((one.step or 0 for one in self.windows if one.place < validation.place), default=0)


def read_esam_log(path: Path) -> EsamLog:
    """Reads either file; which it is shows in its content.

    Raises
    ------
    DitrError: the file is missing, counts iterations, or holds no whole record of an mmengine training.
    """
    if not path.is_file():
        fix = "Name the .log file in work_dirs/<config>/<time>/, or the scalars.json in its folder vis_data."
        raise DitrError("no such file", code=Code.RUN, where=str(path), fix=fix)
    content = path.read_bytes()
    text = decode_text(content)
    scalars = text.lstrip().startswith("{")
    made: list[tuple[str, LogRecord]] = []  # with the text of its session
    cut = 0
    for session in _SESSION.split(text):
        for line in session.splitlines():
            try:
                record = _scalar(line) if scalars else _message(line)
            except (ValueError, TypeError, OverflowError, RecursionError):
                cut += 1
            else:
                made += [(session, record)] if record else []
    _require_epochs([record for _, record in made], path=path, cut=cut)
    left: list[tuple[str, LogRecord]] = []
    returns = 0
    for session, record in made:
        returns += record.is_window and bool(left) and left[-1][1].place >= record.place
        while left and left[-1][1].place >= record.place:
            left.pop()
        left.append((session, record))
    windows = tuple(record for _, record in left if record.is_window)
    sessions = [(text, [record for _, record in records]) for text, records in groupby(made, key=lambda one: one[0])]
    begun = left[0][0]
    return EsamLog(
        sha256=hashlib.sha256(content).hexdigest(),
        kind="scalars" if scalars else "text log",
        windows=windows,
        validations=tuple(record for _, record in left if not record.is_window),
        facts={name: found[1] for name, fact in _FACTS.items() if (found := re.search(fact, begun, re.MULTILINE))},
        sessions=max(len(sessions), 1 + returns),
        superseded=len(made) - len(left),
        cut=cut,
        started=_started(begun),
        seconds=_sum_of_times(windows) if scalars else sum(_seconds(*session) for session in sessions),
        steps_per_epoch=_steps_per_epoch(windows),
    )


def _message(line: str) -> LogRecord | None:
    """The record in a line of a text log, if one is there; ValueError if it is not whole."""
    found = _RECORD.match(line)
    if found is None:
        if "Epoch(" in line:
            raise ValueError("not whole")
        return None
    stamp, what, epoch, batch, batches, before_eta, text = found.groups()
    is_window = what == "train"
    if not is_window and before_eta is not None:
        return None  # how far a validation is
    text = f"{before_eta or ''}  {text}"
    values = {name: float(value) for name, value in _PAIR.findall(text)}
    whole = _PAIR.sub("\0", text).rstrip().endswith("\0") and " - mmengine - " not in text
    if not whole or not values.keys() >= ({"loss"} if is_window else AP_NAMES):
        raise ValueError("not whole")
    step = (int(epoch or 1) - 1) * int(batches) + int(batch) if is_window else None
    at = datetime.strptime(stamp, _TIME_FORMAT)
    epoch = int(epoch) if epoch else None
    return LogRecord(is_window=is_window, epoch=epoch, step=step, values=values, at=at, batches=int(batches))


def _scalar(line: str) -> LogRecord | None:
    """The record in a line of scalars, if it is one; ValueError or TypeError if the line is not whole."""
    found = dict(json.loads(line)) if line.strip() else {}
    values = {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
    place = {name: int(values.pop(name)) for name in ("epoch", "iter", "step") if name in values}
    if "iter" in place and "loss" in values:
        return LogRecord(is_window=True, epoch=place.get("epoch"), step=place["iter"], values=values)
    if values.keys() >= AP_NAMES:
        return LogRecord(is_window=False, epoch=place.get("step") or None, step=None, values=values)
    return None


def _require_epochs(records: Sequence[LogRecord], *, path: Path, cut: int) -> None:
    if not records:
        what = f"no whole record of a training or validation by mmengine in it ({cut} that are not whole)"
        fix = "Name the .log file in work_dirs/<config>/<time>/, or the scalars.json in its folder vis_data."
        raise DitrError(what, code=Code.RUN, where=str(path), fix=fix)
    last = max((one.place for one in records if one.is_window), default=(math.inf,))[0]
    validated = max((one.epoch or 0 for one in records), default=0)
    if validated > last or any(one.is_window and one.epoch is None for one in records):
        fix = "Import a training whose log counts epochs, as ESAM's does (EpochBasedTrainLoop, log_metric_by_epoch)."
        raise DitrError("this log counts iterations, not epochs", code=Code.RUN, where=str(path), fix=fix)


def _started(session: str) -> datetime | None:
    """The time of the first message."""
    for stamp in re.findall(_HEAD, session):
        with suppress(ValueError):  # two messages written into each other
            return datetime.strptime(stamp, _TIME_FORMAT)
    return None


def _seconds(session: str, records: Sequence[LogRecord]) -> float:
    """From the first message to the last record."""
    first, last = _started(session), records[-1].at
    return (last - first).total_seconds() if first and last else 0.0


def _sum_of_times(windows: Sequence[LogRecord]) -> float | None:
    times = [window.values["time"] for window in windows if "time" in window.values]
    if not times:
        return None
    return mean(times) * (windows[-1].place[1] - windows[0].place[1] + _window_length(windows))


def _steps_per_epoch(windows: Sequence[LogRecord]) -> int | None:
    """As a text log says it, or from the first windows of epochs that follow each other."""
    if not windows or windows[-1].batches:
        return windows[-1].batches if windows else None
    first = [next(of_epoch).place for _, of_epoch in groupby(windows, key=lambda one: one.epoch)]
    apart = [step - before for (epoch, before), (following, step) in pairwise(first) if following == epoch + 1]
    return int(mode(apart)) if apart else None


def _window_length(windows: Sequence[LogRecord]) -> float:
    """Iterations a window."""
    steps = [window.place[1] for window in windows]
    return min((after - before for before, after in pairwise(steps)), default=steps[0])
