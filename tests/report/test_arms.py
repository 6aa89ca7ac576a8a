"""Which finished runs there are to compare, and what is said of the others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import ditr
from ditr.cli.compare import find_arms
from ditr.errors import DitrError
from ditr.paths import project_dir
from ditr.report.arms import all_arms
from ditr.report.compare import compare
from tests.reference.finished_runs import (
    Make,
    arms_of,
    compared,
)


def test_missing_seeds_are_said(runs: Path, make: Make) -> None:
    make("baseline.yaml", "seeds=[0, 1, 2, 3]")
    make("bifusion.yaml", "seeds=[0, 1, 2]")
    assert compared(runs, "baseline", "bifusion").caveats == ("baseline: 3 of 4 seeds are finished.",)


def test_two_experiments_of_one_name_are_told_apart(runs: Path, make: Make) -> None:
    make("baseline.yaml")
    make("baseline.yaml", "schedule.epochs=9")
    labels = [arm.label for arm in all_arms(runs).found]
    with pytest.raises(DitrError, match="2 different experiments are called 'baseline'") as ambiguous:
        arms_of(runs, "baseline")
    assert all(label in ambiguous.value.fix for label in labels)
    assert "schedule.epochs 9" in ambiguous.value.fix
    (chosen,) = arms_of(runs, labels[1]).found
    assert chosen.spec.schedule.epochs == 9
    (again,) = arms_of(runs, chosen.runs[0].folder.path.name).found
    assert again.label == chosen.label, "by the folder, as ditr ls names runs"


@pytest.mark.parametrize("made", [["minkowski"], ["triton"], ["minkowski", "triton"]])
def test_a_spec_file_is_its_runs_with_any_engine(
    runs: Path, make: Make, monkeypatch: pytest.MonkeyPatch, made: list[str]
) -> None:
    """They may have been made on another machine than this."""
    monkeypatch.setenv("DITR_RUNS", str(runs))
    for engine in made:
        make("baseline.yaml", f"execution.engine={engine}", seeds=1)
    found = find_arms([str(project_dir() / "specs/baseline.yaml")]).found
    assert [arm.spec.execution.engine for arm in found] == made


def test_unknown_names_and_names_given_twice_are_refused(runs: Path, make: Make) -> None:
    with pytest.raises(DitrError, match="no finished run yet"):
        arms_of(runs, "baseline")
    make("baseline.yaml")
    with pytest.raises(DitrError, match="called 'baselin'; did you mean baseline"):
        arms_of(runs, "baselin")
    with pytest.raises(DitrError, match="named before"):
        arms_of(runs, "baseline", "baseline")


def test_a_run_that_lost_a_file_is_named(runs: Path, make: Make) -> None:
    make("baseline.yaml", seeds=2)
    make("bifusion.yaml", seeds=2)
    lost = next(runs.glob("baseline-s1-*/matches.parquet"))
    lost.unlink()
    found = compare(all_arms(runs), metric="ap50", resamples=50)
    assert [one.arm.seeds for one in found.arms] == [(0,), (0, 1)]
    (caveat,) = [said for said in found.caveats if "left out" in said]
    assert caveat == f"{lost.parent.name} is left out: unreadable matches.parquet: a finished run lacks it."


ODD = ("{", "[]", "null", '{"run_key": 1}', "")


@pytest.mark.parametrize("file", ["state.json", "result.json", "provenance.json", "spec.resolved.yaml"])
@pytest.mark.parametrize("content", ODD)
def test_a_damaged_record_is_left_out_and_said(runs: Path, make: Make, file: str, content: str) -> None:
    make("baseline.yaml", seeds=2)
    next(runs.glob(f"baseline-s1-*/{file}")).write_text(content)
    found = compare(all_arms(runs), metric="ap50", resamples=50)
    assert [one.arm.seeds for one in found.arms] == [(0,)]
    assert any("baseline-s1-" in said and "is left out: " in said for said in found.caveats)
    with pytest.raises(DitrError, match=r"called 'bifusion'; there are baseline\n    baseline-s1-.* is left out: "):
        arms_of(runs, "bifusion")


def test_a_copied_run_is_no_further_seed(runs: Path, make: Make) -> None:
    make("baseline.yaml", seeds=2)
    make("bifusion.yaml", seeds=2)
    before = compare(all_arms(runs), metric="ap50", resamples=50)
    copied = next(runs.glob("baseline-s1-*"))
    shutil.copytree(copied, runs / f"copy-{copied.name}")
    found = compare(all_arms(runs), metric="ap50", resamples=50)
    assert [one.spreads for one in found.arms] == [one.spreads for one in before.arms]
    assert f"copy-{copied.name} is left out: it is the same run as {copied.name}." in found.caveats


def test_nothing_to_compare_is_one_message(runs: Path) -> None:
    with pytest.raises(DitrError, match="no finished run yet"):
        ditr.compare(runs=runs)
