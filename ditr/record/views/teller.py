"""Tells views of records beside the work: the work never waits for a view, and never fails by one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from ditr.errors import DitrError, in_short
from ditr.machine_errors import as_mistake
from ditr.record.folder import Record
from ditr.record.views import View

PATIENCE_S = 60.0
"""Longest wait at the end for views that are still being told."""
BRINGS_UP_TO_DATE = "ditr sync"
"""The command that tells views what they lack."""
_NAMED = 3
"""Records that a line names; of the others it says how many they are."""

_THREAD = "views"


def is_telling() -> bool:
    """Whether views are still being told that nobody waits for any more."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


class Teller:
    """While entered, takes records and tells them to the views, in a thread of its own; at the end they catch up.

    Parameters
    ----------
    say: is given a line for each view that could not be told, at the end.
    """

    def __init__(self, views: Sequence[View], *, say: Callable[[str], None]) -> None:
        self._views = views
        self._say = say
        self._changed = threading.Condition()
        self._waiting: dict[str, Record] = {}
        self._ending = False
        self._troubles: dict[str, str] = {}
        self._untold: dict[str, set[str]] = {view.name: set() for view in views}
        self._thread = threading.Thread(target=self._work, name=_THREAD, daemon=True)

    def tell(self, folder: Record) -> None:
        """Returns at once; a record that is told again before the views took it is told once."""
        with self._changed:
            self._waiting[folder.name] = folder
            self._changed.notify()

    def __enter__(self) -> Teller:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for the views, but not for ever, and not if the user insists on stopping."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if kind is not None and not issubclass(kind, Exception):
            return
        self._thread.join(PATIENCE_S)
        late = {view.name: f"it takes longer than {PATIENCE_S:.0f} s{_fix()}" for view in self._views}
        troubles = late if self._thread.is_alive() else self._troubles
        for name, trouble in troubles.items():
            self._say(f"{name} lacks {self._missing(name)}: {trouble}")

    def _missing(self, view: str) -> str:
        """What this process has told to no avail; records of before may be missing too."""
        names = sorted(self._untold.get(view, ()))
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return (", ".join(names[:_NAMED]) + more) if names else "what changed since it was last told"

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending)
                folders, self._waiting, ending = tuple(self._waiting.values()), {}, self._ending
            for view in self._views:
                untold = self._untold[view.name]
                untold |= {folder.name for folder in folders}
                try:
                    view.catch_up() if ending else view.tell(folders)
                    untold.clear() if ending else untold.difference_update({folder.name for folder in folders})
                    self._troubles.pop(view.name, None)
                except Exception as error:  # a view's trouble is never the work's
                    self._troubles[view.name] = _in_words(error)
            if ending:
                return


def _in_words(error: Exception) -> str:
    error = as_mistake(error) or error
    return in_short(error) + _fix(error.fix if isinstance(error, DitrError) else "")


def _fix(first: str = "") -> str:
    """What brings a view up to date, after what else has to be done."""
    return "\n  fix: " + (f"{first.rstrip('.')}; then: " if first else "") + BRINGS_UP_TO_DATE
