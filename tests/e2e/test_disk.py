"""What a plan says of the disk against what runs have written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ditr.data.dataset import Dataset
from ditr.paths import project_dir
from ditr.runner.costs import costs
from ditr.runner.execution import settle_loaded
from ditr.runner.plan import plan
from ditr.runner.totals import totals
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry
from tests.e2e.shell import ARMS, SMALL, Shell

pytestmark = pytest.mark.slow


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_a_plan_says_what_runs_write(done: Shell, tiny_dataset: Dataset, tmp_path: Path) -> None:
    registry = Registry()
    files = [project_dir() / f"specs/{arm}.yaml" for arm in ARMS]
    specs = [settle_loaded(load_spec(file, registry=registry, overrides=SMALL)) for file in files]
    planned = plan(specs, registry=registry, runs=tmp_path, force=False)
    found = costs([one.spec for one in specs], registry=registry)
    total = totals(specs, found, planned, [None] * len(specs))
    assert total.record_bytes == pytest.approx(sum(size(done.folder(arm)) for arm in ARMS), rel=0.15)
    assert (total.runs, total.data_bytes, total.hours) == (len(ARMS), 0, None)
    not_made = [replace(one, forward=None) for one in found]
    missing = totals(specs, not_made, planned, [None] * len(specs))
    assert missing.data_bytes == pytest.approx(size(tiny_dataset.root), rel=0.15)
