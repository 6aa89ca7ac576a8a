"""A run by its folder: what is no run is refused by its kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ditr.errors import DitrError
from ditr.record.lookup import find_run
from ditr.record.state import Kind, RecordState, write_state

STATE = RecordState(run_key="k", spec_hash="h", name="a", variant="baseline", seed=0, started_at="2026-01-01T00:00:00")


def test_a_record_of_another_kind_is_no_run(tmp_path: Path) -> None:
    kinds: tuple[Kind, ...] = ("check", "eval", "imported")
    for kind in kinds:
        (tmp_path / f"a-{kind}").mkdir()
        write_state(tmp_path / f"a-{kind}" / "state.json", replace(STATE, kind=kind, state="finished"))
        with pytest.raises(DitrError, match=f"a record of kind '{kind}', not a run"):
            find_run(f"a-{kind}", runs=tmp_path)
    (tmp_path / "a-s0").mkdir()
    write_state(tmp_path / "a-s0" / "state.json", STATE)
    assert find_run("a-s0", runs=tmp_path).path == tmp_path / "a-s0"
