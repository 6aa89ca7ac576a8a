"""How long a query may take and how much memory it may fill, so that a mistaken one ends."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ditr.errors import Code, DitrError
from ditr.resources import resident_mb

if TYPE_CHECKING:
    import duckdb

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class QueryLimits:
    """Of one query."""

    seconds: float = 60.0
    memory_mb: int = 2048
    """MiB of the database's work, and as much again of its answer."""

    def settings(self) -> dict[str, str]:
        """What DuckDB is told; nothing may be put on the disk in place of the memory."""
        return {"memory_limit": f"{self.memory_mb}MiB", "max_temp_directory_size": "0B"}

    def collect(self, parts: Iterable[_T]) -> list[_T]:
        """The parts of an answer as they come.

        Raises
        ------
        DitrError: together they fill more memory than is allowed.
        """
        collected, before = [], resident_mb()
        for part in parts:
            collected.append(part)
            if resident_mb() - before > self.memory_mb:
                raise self.memory_exceeded()
        return collected

    @contextmanager
    def interrupting(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Ends what the connection does, with duckdb's ``InterruptException``, when the time is over."""
        timer = threading.Timer(self.seconds, connection.interrupt)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def time_exceeded(self) -> DitrError:
        """For a query that was interrupted."""
        what = f"the query was ended after {self.seconds:g} s"
        return DitrError(what, code=Code.QUERY, fix="Join tables by run_key, ask for less, or give it more --seconds.")

    def memory_exceeded(self) -> DitrError:
        """For a query that was ended for its memory."""
        what = f"the query needs more than {self.memory_mb:,} MiB of memory"
        return DitrError(
            what, code=Code.QUERY, fix="Join tables by run_key, ask for less, or give it more --memory-mb."
        )


DEFAULT_LIMITS = QueryLimits()
