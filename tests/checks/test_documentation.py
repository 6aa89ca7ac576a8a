"""docs/features.md names every measure of ``ditr check``."""

from __future__ import annotations

import re

from ditr.checks import tables
from ditr.checks.measure import Measure
from ditr.paths import project_dir


def test_every_measure_is_a_row_of_the_document() -> None:
    text = (project_dir() / "docs" / "features.md").read_text().partition("**Stage 1")[2]
    first_cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    named = {name for cell in first_cells for name in re.findall(r"\w+", re.sub(r"\{.*?\}", "", cell))}
    parts = [part for part in vars(tables).values() if isinstance(part, tuple)]
    measures = {one.name for part in parts for one in part if isinstance(one, Measure)}
    assert len(measures) > 60
    assert {
        one
        for one in measures
        if not {one, f"sN_{one}", f"P_{one}", f"_sN_{one}", f"bifusion_{one}", f"part_F_{one}"} & named
    } == set()
