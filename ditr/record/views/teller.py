"""Tells views of records beside the work: the work never waits for a view, and never fails by one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from ditr.errors import DitrError, in_short
from ditr.record.folder import Record
from ditr.record.views import View

PATIENCE_S = 60.0
"""Longest wait at the end for views that are still being told."""


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
        late = {view.name: f"it takes longer than {PATIENCE_S:.0f} s" for view in self._views}
        troubles = late if self._thread.is_alive() else self._troubles
        for name, trouble in troubles.items():
            self._say(f"{name} does not have everything yet: {trouble}; the next command tells it again")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending)
                folders, self._waiting, ending = tuple(self._waiting.values()), {}, self._ending
            for view in self._views:
                try:
                    view.catch_up() if ending else view.tell(folders)
                    self._troubles.pop(view.name, None)
                except Exception as error:  # a view's trouble is never the work's
                    fix = f" ({error.fix})" if isinstance(error, DitrError) and error.fix else ""
                    self._troubles[view.name] = in_short(error) + fix
            if ending:
                return
