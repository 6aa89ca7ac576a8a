"""Plain text tables, the same on a terminal and in a file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP = 2


def text_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The rows as aligned columns, numbers to the right, never wrapped or cut; ``-`` for a missing value."""
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    cells = [[_cell(value) for value in row] for row in rows]
    for position, name in enumerate(columns):
        number = all(isinstance(row[position], int | float | None) for row in rows)
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))
    widths = [max(len(line[position]) for line in (columns, *cells)) for position in range(len(columns))]
    text = io.StringIO()
    Console(file=text, width=sum(widths) + GAP * len(widths) + 1, highlight=False).print(table)
    return "".join(line.rstrip() + "\n" for line in text.getvalue().splitlines())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
    return str(value)
