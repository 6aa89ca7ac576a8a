"""What `ditr check` leaves behind, and what becomes of a stage that breaks; the stages have their own tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ditr.checks import stages
from ditr.checks.measure import Check
from ditr.checks.subject import Subject
from ditr.data.dataset import Dataset
from ditr.errors import Code, DitrError, Interrupted
from ditr.paths import project_dir
from ditr.progress import Progress, silent
from ditr.record.folder import Record
from ditr.record.recording import DRAFTS
from ditr.record.views.results import Results
from ditr.record.views.teller import Teller
from ditr.runner.check import SpecCheck, check_all
from ditr.runner.check_subject import CheckRequest, chosen_frames
from ditr.runner.host import Host
from ditr.runner.stop import StopSignal
from ditr.spec.load import LoadedSpec, load_spec
from ditr.spec.registry import Registry

pytestmark = pytest.mark.usefixtures("tiny_dataset")
REGISTRY = Registry()
OVERRIDES = ("dataset.name=synthrooms_tiny", "checkpoint=null", "execution.workers=0", "tracking.mlflow=false")
STAGE_3 = CheckRequest(stages=(3,), frames=2)


def load(name: str = "fpn_inject", *overrides: str) -> LoadedSpec:
    path = project_dir() / "specs" / f"{name}.yaml"
    given = {override.partition("=")[0]: override for override in (*OVERRIDES, *overrides)}
    return load_spec(path, registry=REGISTRY, overrides=tuple(given.values()))


def host(*, progress: Progress = silent) -> Host:
    return Host(
        registry=REGISTRY,
        progress=progress,
        say=[].append,
        stop=StopSignal(),
        draw=lambda folder, found: None,
        teller=Teller((), say=print),
    )


def check(runs: Path, *specs: LoadedSpec, asked: CheckRequest = STAGE_3, using: Host | None = None) -> list[SpecCheck]:
    return list(check_all(specs or (load(),), asked=asked, host=using or host(), runs=runs))


def reported(name: str, value: float, *, stage: int = 3) -> Check:
    return Check(stage=stage, name=name, value=value, limit="reported", passed=True)


def stage_that(patch: pytest.MonkeyPatch, *found: Check | Exception) -> None:
    """In the place of stage 3; any other finds one thing."""

    def run_stage(stage: int, subject: Subject, *, every_map: bool, progress: Progress) -> Iterator[Check]:
        for one in found if stage == 3 else (reported("after", 2.0, stage=stage),):
            if isinstance(one, Exception):
                raise one
            yield one

    patch.setattr(stages, "run_stage", run_stage)


def rows_of(folder: Record | None) -> list[dict[str, Any]]:
    assert folder is not None
    return [json.loads(line) for line in folder.checks.read_text().splitlines()]


def test_real_stages_pass_and_are_recorded(tmp_path: Path) -> None:
    (checked,) = check(tmp_path, load("fpn_inject", "fusion.injection.scales=[8, 1]"))
    assert checked.error is None
    assert checked.failed == 0
    folder = checked.folder
    assert folder is not None
    state = folder.state()
    assert state is not None
    assert (state.kind, state.state, state.name) == ("check", "finished", "fpn_inject")
    assert folder.path.name == f"fpn_inject-check-{state.run_key}"
    assert len(rows_of(folder)) == len(checked.checks)
    assert json.loads(folder.provenance.read_text())["features"]["source"] == "vit_mini14_reg4"
    assert not (tmp_path / DRAFTS).exists()

    results = Results(tmp_path)
    (row,) = results.query("select kind, name, variant, failed_checks, n_frames, split, engine from results").rows
    assert row == ("check", "fpn_inject", "custom", 0, 2, "train and val", "minkowski")
    sql = "select stage, check_name, value, bound, passed, variant from checks where check_name = 's8_channels'"
    assert results.query(sql).rows == ((3, "s8_channels", 128.0, "= 128", True, "custom"),)


def test_a_spec_of_half_precision_is_checked_in_float32_and_the_record_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_that(monkeypatch, reported("value", 1.0))
    (checked,) = check(tmp_path, load("fpn_inject", "execution.precision=bfloat16"))
    assert checked.folder is not None
    assert checked.folder.read_result()["precision"] == "float32"
    assert "engine: minkowski, precision: float32" in checked.folder.spec.read_text()


def test_failures_are_counted_and_kept_with_what_they_were_held_against(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_that(
        monkeypatch,
        Check(stage=3, name="s8_values", value=0.5, limit="<= 0.001", passed=False, detail="scene0000_00_0"),
        reported("not_a_number", float("nan")),
        Check(stage=3, name="s8_same_voxels", value=None, limit="the backbone's", passed=True),
    )
    (checked,) = check(tmp_path)
    assert checked.failed == 1
    values, not_a_number, _ = rows_of(checked.folder)
    assert (values["value"], values["limit"], values["passed"]) == (0.5, "<= 0.001", False)
    assert (not_a_number["value"], not_a_number["detail"]) == (None, "the value is nan")
    results = Results(tmp_path)
    assert results.query("select failed_checks from results").rows == ((1,),)
    assert results.query("select check_name, detail from checks where not passed").rows == (
        ("s8_values", "scene0000_00_0"),
    )


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DitrError("no map", code=Code.FEATURES, where="frame 3", fix="make it"), "frame 3: no map; make it"),
        (ZeroDivisionError("in the middle"), "ZeroDivisionError: in the middle"),
    ],
)
def test_a_stage_that_raises_is_a_failed_check_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    stage_that(monkeypatch, reported("before", 1.0), error)
    (checked,) = check(tmp_path, asked=CheckRequest(stages=(3, 4), frames=1))
    assert checked.error is None
    assert [(one.stage, one.name, one.passed) for one in checked.checks] == [
        (3, "before", True),
        (3, "completed", False),
        (4, "after", True),
    ]
    assert checked.checks[1].detail.startswith(told)
    assert checked.folder is not None
    assert "Traceback" in checked.folder.log_file.read_text()


def test_a_repeated_check_replaces_the_old_one_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage_that(monkeypatch, reported("first", 1.0))
    (first,) = check(tmp_path)
    stage_that(monkeypatch, reported("second", 2.0))
    (second,) = check(tmp_path)
    assert first.folder is not None
    assert second.folder is not None
    assert first.folder.path == second.folder.path
    assert second.replaced is not None
    assert rows_of(Record(second.replaced))[0]["name"] == "first"
    results = Results(tmp_path)
    assert results.query("select check_name from checks").rows == (("second",),)
    assert results.rebuild() == 1
    assert results.query("select check_name from checks").rows == (("second",),)


def test_what_decides_a_check_is_in_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage_that(monkeypatch, reported("one", 1.0))
    specs = [load(), load("fpn_inject", "checks.max_empty_voxels=0.1"), load("fpn_inject", "seeds=[3]")]
    found = [*check(tmp_path, *specs), *check(tmp_path, asked=CheckRequest(stages=(3,), frames=1))]
    same = check(tmp_path, load("fpn_inject", "description=other"))
    folders = [one.folder.path for one in found if one.folder is not None]
    assert len(set(folders)) == 4
    assert same[0].folder is not None
    assert same[0].folder.path == folders[0]


def test_a_spec_that_cannot_be_opened_does_not_keep_the_others_from_their_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_that(monkeypatch, reported("one", 1.0))
    missing = load("fpn_inject", "checkpoint={kind: file, path: nowhere.pth, format: ditr}")
    broken, sound = check(tmp_path, missing, load())
    assert isinstance(broken.error, DitrError)
    assert broken.folder is None
    assert sound.error is None
    assert sound.folder is not None
    assert not (tmp_path / DRAFTS).exists()


def test_maps_alone_need_no_checkpoint(tmp_path: Path) -> None:
    missing = load("fpn_inject", "checkpoint={kind: file, path: nowhere.pth, format: ditr}")
    (checked,) = check(tmp_path, missing, asked=CheckRequest(stages=(1,), frames=1))
    assert checked.error is None
    assert {one.stage for one in checked.checks} == {1}


def test_a_stop_leaves_nothing(tmp_path: Path) -> None:
    stop = StopSignal()

    def stopping(what: str, done: int, total: int) -> None:
        stop.asked = what == "pyramid"

    using = replace(host(progress=stopping), stop=stop)
    with pytest.raises(Interrupted):
        check(tmp_path, using=using)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".locks"] == []


def test_frames_are_spread_over_both_splits_and_depend_on_the_seed(tiny_dataset: Dataset) -> None:
    every = (*tiny_dataset.train.ids, *tiny_dataset.val.ids)
    assert chosen_frames(tiny_dataset, count=99, seed=0).ids == every
    halves = {chosen_frames(tiny_dataset, count=2, seed=seed).ids for seed in range(20)}
    assert len(halves) > 1
    assert all(first in tiny_dataset.train.ids and second in tiny_dataset.val.ids for first, second in halves)
    one = chosen_frames(tiny_dataset, count=1, seed=0)
    assert one.ids == chosen_frames(tiny_dataset, count=1, seed=0).ids
