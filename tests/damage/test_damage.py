"""Damaged files, of every kind that is read: one clear error, or the very content that was written.

Places and kinds of damage are drawn from a seed. ``make damage`` tries far more.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damage import binary_files, folders, records, text_files
from tests.damage.kind import Kind, outcomes, unexpected

KINDS: dict[str, Kind] = binary_files.KINDS | text_files.KINDS | records.KINDS | folders.KINDS


@pytest.mark.parametrize("kind", [pytest.param(kind, id=name) for name, kind in KINDS.items() if kind.few])
def test_a_damaged_file_is_refused_or_read_as_it_was_written(kind: Kind, tmp_path: Path) -> None:
    found = {what: came for what, came in outcomes(kind, tmp_path, count=kind.few) if unexpected(kind, came)}
    assert not found
