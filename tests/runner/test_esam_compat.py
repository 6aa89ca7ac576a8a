"""One spec with ESAM's quirks and without: two experiments, and both rows say which one they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from ditr.data.dataset import Dataset
from ditr.paths import project_dir
from ditr.progress import silent
from ditr.record.views.results import Results
from ditr.record.views.teller import Teller
from ditr.runner.host import Host
from ditr.runner.plan import plan
from ditr.runner.run import run_all
from ditr.runner.stop import StopSignal
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

SMALL = (
    "dataset.name=synthrooms_tiny",
    "checkpoint=null",
    "loss.dice_aux=0.25",
    "schedule.epochs=2",
    "schedule.batch_size=2",
    "execution.workers=0",
    "tracking.mlflow=false",
    "tracking.panels=0",
)


@pytest.mark.slow
def test_the_row_says_whether_esams_quirks_were_in_and_what_differs(tmp_path: Path, tiny_dataset: Dataset) -> None:
    registry = Registry()
    specs = [
        load_spec(project_dir() / "specs/baseline.yaml", registry=registry, overrides=[*SMALL, f"esam_compat={answer}"])
        for answer in ("false", "true")
    ]
    planned = plan(specs, registry=registry, runs=tmp_path, force=False)
    host = Host(
        registry=registry,
        progress=silent,
        say=[].append,
        stop=StopSignal(),
        draw=lambda folder, evaluation: None,
        teller=Teller((), say=print),
    )
    results = Results(tmp_path)
    outcomes = run_all(planned, host=host)
    assert [outcome.error for outcome in outcomes] == [None, None]
    columns = "esam_compat, esam_differences, ap, ap_to_90, ap_to_95, spec_hash"
    fixed, compat = results.query(f"select {columns} from results order by esam_compat").rows
    assert (fixed[0], compat[0]) == (False, True)
    assert [one.split()[0] for one in fixed[1].split("; ")] == ["Q1", "Q2", "Q3", "Q4", "Q6"]
    assert [one.split()[0] for one in compat[1].split("; ")] == ["Q2"]
    assert fixed[2] == fixed[4]
    assert compat[2] == compat[3]
    assert fixed[5] != compat[5]
    rates = "select value from metrics m join results r using (run_key) where m.name = 'epoch/lr' and r.esam_compat"
    assert [rate for (rate,) in results.query(f"{rates} order by step").rows] == [1e-4, 0.0]
    logged = "select distinct name from metrics where name in ('val/ap_to_90', 'val/ap_to_95')"
    assert len(results.query(logged).rows) == 2
