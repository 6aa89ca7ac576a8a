"""Views are made of records and can be made again: results in DuckDB, and MLflow.

A view may be missing, damaged, locked or slow. No training waits for one and none fails by one; what a view missed it
is told by the next command.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ditr.record.folder import Record


class View(Protocol):
    """One of them. What its methods raise is the view's trouble alone."""

    @property
    def name(self) -> str:
        """Of its file."""

    def tell(self, folders: Sequence[Record]) -> None:
        """Takes these records as they are now."""

    def catch_up(self) -> None:
        """Takes all that changed since it was told, and forgets what is gone."""

    def rebuild(self) -> int:
        """Is made anew from the records; returns how many it shows."""


def views_of(runs: Path) -> tuple[View, ...]:
    """All views of a folder of records."""
    from ditr.record.views.mlflow_view import MlflowView
    from ditr.record.views.results import Results

    return Results(runs), MlflowView(runs)
