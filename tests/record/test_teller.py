from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ditr.errors import Code, DitrError
from ditr.record.folder import Record
from ditr.record.views import teller as module
from ditr.record.views.teller import Teller


class Recorder:
    """A view that notes what it is told, and does as it is asked to before."""

    name = "recorder"

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.told: list[str] = []
        self._before = before

    def tell(self, folders: Sequence[Record]) -> None:
        self._before()
        self.told += [folder.path.name for folder in folders]

    def catch_up(self) -> None:
        self._before()
        self.told.append("all")

    def rebuild(self) -> int:
        return 0


def broken() -> None:
    raise DitrError("the store is damaged", code=Code.RUN, fix="Make it anew.")


def test_a_view_in_trouble_stops_neither_the_work_nor_the_other_views_and_is_a_line_at_the_end(tmp_path: Path) -> None:
    said: list[str] = []
    sound, damaged = Recorder(), Recorder(broken)
    damaged.name = "damaged"
    with Teller([damaged, sound], say=said.append) as teller:
        teller.tell(Record(tmp_path / "one"))
    assert sound.told[-1] == "all"
    (line,) = said
    assert line == "damaged lacks one: the store is damaged\n  fix: Make it anew; then: ditr sync"


def test_the_work_does_not_wait_for_a_slow_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    said: list[str] = []
    release = threading.Event()
    slow = Recorder(lambda: bool(release.wait(20)) and None)
    began = time.monotonic()
    with Teller([slow], say=said.append) as teller:
        for number in range(100):
            teller.tell(Record(tmp_path / str(number)))
    assert time.monotonic() - began < 5
    assert "takes longer" in said[0]
    release.set()


def test_a_record_that_is_told_often_is_told_as_it_is_in_the_end(tmp_path: Path) -> None:
    gate = threading.Event()
    view = Recorder(lambda: bool(gate.wait(20)) and None)
    with Teller([view], say=[].append) as teller:
        for _ in range(50):
            teller.tell(Record(tmp_path / "one"))
        gate.set()
    assert view.told[-1] == "all"
    assert view.told.count("one") <= 2


def test_trouble_that_passed_is_not_told(tmp_path: Path) -> None:
    said: list[str] = []
    troubles = [broken]
    with Teller([Recorder(lambda: troubles.pop()() if troubles else None)], say=said.append) as teller:
        teller.tell(Record(tmp_path / "one"))
        while troubles:
            time.sleep(0.01)
    assert said == []


def test_who_insists_on_stopping_does_not_wait(tmp_path: Path) -> None:
    release = threading.Event()
    view = Recorder(lambda: bool(release.wait(20)) and None)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012, SIM117
        with Teller([view], say=[].append) as teller:
            teller.tell(Record(tmp_path / "one"))
            raise KeyboardInterrupt
    assert time.monotonic() - began < 5
    release.set()
