"""Takes what mmengine wrote, line by line, and keeps what a training ended up with.

A resumed training repeats epochs. What it did again counts once, as it was done last; what an abandoned continuation
did beyond that point goes with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import Any, Literal

Kind = Literal["text log", "scalars"]

AP_NAMES = ("all_ap", "all_ap_50%", "all_ap_25%")

_HEAD = re.compile(r"(?:(\d{4})/)?(\d\d)/(\d\d) (\d\d):(\d\d):(\d\d) - mmengine - [A-Z]+ - ")
_RECORD = re.compile(r"Epoch\((train|val|test)\)\s*(?:\[\s*(\d+)\])?\[\s*(\d+)/(\d+)\]\s*(.*)$")
_ETA = re.compile(r"eta: .*?(?=\s\s|$)")
_PAIR = re.compile(r"(?:^|(?<=\s))(\S+): (-?(?:\d+(?:\.(\d+))?(?:e[+-]\d+)?|nan|inf))(?=\s|$)")
_AVERAGED = re.compile(r"loss|time|grad_norm|^all_ap")
"""Names whose values mmengine prints with a fixed number of decimals: with fewer, the line is cut off."""
_MODE = re.compile(r"^(train|val|test)/")
"""In front of names in scalars, where mmengine is configured so."""
_TOP_LEVEL = re.compile(r"^(\w+) = ")
_ENVIRONMENT = {
    "device": re.compile(r"^\s*GPU [\d,]+: (.+?)\s*$"),
    "torch": re.compile(r"^\s*PyTorch: (\S+)\s*$"),
    "seed": re.compile(r"^\s*seed: (\d+)\s*$"),
    "gpus": re.compile(r"^\s*GPU number: (\d+)\s*$"),
}
_CONFIG = {
    "load_from": ("load_from", re.compile(r"^load_from = '(.+)'\s*$")),
    "train_cfg": ("max_epochs", re.compile(r"\bmax_epochs=(\d+)")),
    "train_dataloader": ("batch_size", re.compile(r"\bbatch_size=(\d+)")),
}
"""By section of the configuration, the fact to find in it."""
_UNDATED_YEAR = 2000
"""Stands in where a log's times have no year; a leap year."""
_TEST = 1 << 62
"""Orders a test of given weights after all epochs."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Means over the iterations since the window before (50, as ESAM is configured)."""

    epoch: int
    """From 1."""
    step: int
    """Iterations since the training began, up to the window's last."""
    values: Mapping[str, float]
    """As the log names them; NaN where one of the iterations was."""
    at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Validation:
    """One evaluation of the validation frames."""

    epoch: int | None
    """Epochs done; None for a test of given weights."""
    values: Mapping[str, float]
    batches: int | None
    at: datetime | None


@dataclass
class Session:
    """From one start of the program to the next."""

    first: datetime | None = None
    last: datetime | None = None
    records: int = 0
    facts: dict[str, str] = field(default_factory=dict)
    """What the environment and the configuration say, by the names above."""

    def note(self, name: str, value: str) -> None:
        """The first value counts; of devices, every kind."""
        known = self.facts.setdefault(name, value)
        if name == "device" and value not in known.split(", "):
            self.facts[name] = f"{known}, {value}"

    def seconds(self) -> float:
        return (self.last - self.first).total_seconds() if self.first and self.last else 0.0


@dataclass(frozen=True)
class _Kept:
    record: Any
    key: tuple[int, int]
    """Epoch, and a count that grows within it."""
    session: Session


class Reader:
    """Holds what the lines so far say."""

    def __init__(self) -> None:
        self.sessions = [Session()]
        self.kind: Kind = "text log"
        self.steps_per_epoch: int | None = None
        """As a text log says it."""
        self.dated = True
        """Times have a year."""
        self.cut = 0
        """Lines that begin or end like a record and are none."""
        self.superseded = 0
        """Records that a later session made again or abandoned."""
        self._windows: list[_Kept] = []
        self._validations: list[_Kept] = []
        self._section = ""
        self._at: datetime | None = None
        self._before: datetime | None = None  # of the message before the last

    @property
    def windows(self) -> tuple[Window, ...]:
        return tuple(kept.record for kept in self._windows)

    @property
    def validations(self) -> tuple[Validation, ...]:
        return tuple(kept.record for kept in self._validations)

    @property
    def begun_in(self) -> Session:
        """The session that made the first record of those left."""
        return (self._windows or self._validations)[0].session

    def line(self, line: str) -> None:
        """Takes the next line."""
        if line.startswith('{"'):
            self._scalars(line)
            return
        heads = list(_HEAD.finditer(line))
        if _RECORD.search(line[: heads[0].start()] if heads else line):
            self.cut += 1
        elif not heads:
            self._inside_message(line)
        # Where a line was cut off, the next message stands behind what is left of it.
        for head, following in zip_longest(heads, heads[1:]):
            self._look_at_clock(head)
            self._message(line[head.end() : following.start() if following else None].strip())

    def _scalars(self, line: str) -> None:
        try:
            record = json.loads(line)
            values = {_MODE.sub("", name): float(value) for name, value in record.items() if _is_number(value)}
            at = {name: int(values.pop(name)) for name in ("epoch", "iter", "step") if name in values}
        except (ValueError, OverflowError, RecursionError):
            self.cut += 1
            return
        if {"epoch", "iter"} <= at.keys() and "loss" in values:
            self.kind = "scalars"
            window = Window(epoch=at["epoch"], step=at["iter"], values=values, at=None)
            self._add_window(window, key=(at["epoch"], at["iter"]))
        elif set(AP_NAMES) <= values.keys():
            self.kind = "scalars"
            epoch = at.get("step")
            if epoch is not None and self._windows:
                epoch = min(epoch, self._windows[-1].record.epoch)  # validations may be counted in iterations
            self._add_validation(Validation(epoch=epoch or None, values=values, batches=None, at=None))

    def _message(self, message: str) -> None:
        record = _RECORD.match(message)
        if record is None:
            self.cut += message.startswith("Epoch(")
            if message.startswith("Exp name: "):
                self.sessions[-1].note("experiment", message.removeprefix("Exp name: "))
            return
        what, epoch, batch, batches, text = record.groups()
        if what != "train" and "eta: " in text:
            return  # how far a validation is
        values = _numbers(text)
        at = self._at if self.dated else None
        done = int(epoch or 0)
        if what == "train" and done and values and "loss" in values and "time" in values:
            self.steps_per_epoch = int(batches)
            step = (done - 1) * int(batches) + int(batch)
            self._add_window(Window(epoch=done, step=step, values=values, at=at), key=(done, int(batch)))
        elif what != "train" and values and (set(AP_NAMES) <= values.keys() or not set(AP_NAMES) & values.keys()):
            self._add_validation(Validation(epoch=done or None, values=values, batches=int(batches), at=at))
        else:
            self.cut += 1

    def _inside_message(self, line: str) -> None:
        """The environment and the configuration are messages of many lines."""
        if line.strip() == "System environment:":
            if self.sessions[-1].records or self.sessions[-1].facts:
                self._begin_session()
            self._section = ""
        for name, pattern in _ENVIRONMENT.items():
            if found := pattern.match(line):
                self.sessions[-1].note(name, found[1])
        if found := _TOP_LEVEL.match(line):
            self._section = found[1]
        if self._section in _CONFIG:
            name, pattern = _CONFIG[self._section]
            if found := pattern.search(line):
                self.sessions[-1].note(name, found[1])

    def _add_window(self, window: Window, *, key: tuple[int, int]) -> None:
        again = self._drop(self._windows, key) + self._drop(self._validations, (window.epoch, 0))
        if again and self.sessions[-1].records:
            self._begin_session()
        self._keep(self._windows, window, key)

    def _add_validation(self, validation: Validation) -> None:
        key = (validation.epoch or _TEST, 0)
        self._drop(self._validations, key)
        self._keep(self._validations, validation, key)

    def _drop(self, kept: list[_Kept], key: tuple[int, int]) -> int:
        """Removes what is at ``key`` or after it; how much that was."""
        before = len(kept)
        while kept and kept[-1].key >= key:
            kept.pop()
        self.superseded += before - len(kept)
        return before - len(kept)

    def _keep(self, kept: list[_Kept], record: Window | Validation, key: tuple[int, int]) -> None:
        self.sessions[-1].records += 1
        kept.append(_Kept(record, key, self.sessions[-1]))

    def _begin_session(self) -> None:
        """With the last message: the time up to it is nobody's."""
        self.sessions[-1].last = self._before
        self.sessions.append(Session(first=self._at, last=self._at))

    def _look_at_clock(self, head: re.Match[str]) -> None:
        year, *rest = head.groups()
        month, day, hour, minute, second = (int(part) for part in rest)
        session = self.sessions[-1]
        try:
            at = datetime(int(year or _UNDATED_YEAR), month, day, hour, minute, second)
            if year is None and session.last is not None:
                at = at.replace(year=session.last.year + (month < session.last.month))
        except ValueError:
            return  # digits of two messages written into each other
        self.dated &= year is not None
        self._before = session.last
        session.first = session.first or at
        session.last = self._at = at


def _numbers(text: str) -> dict[str, float] | None:
    """The named numbers of a record; None if it ends in something else, or in a number that is not whole."""
    text = _ETA.sub("", text).rstrip()
    pairs = list(_PAIR.finditer(text))
    if not pairs or pairs[-1].end() != len(text):
        return None
    decimals = {len(pair[3] or "") for pair in pairs if _AVERAGED.search(pair[1]) and pair[2][-1].isdigit()}
    return {pair[1]: float(pair[2]) for pair in pairs} if len(decimals) <= 1 else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
