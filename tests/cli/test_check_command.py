"""What ``ditr check`` says and with which code it ends; the stages are replaced."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ditr.checks import stages
from ditr.checks.measure import Check
from ditr.checks.subject import Subject
from ditr.cli import check as command
from ditr.cli.main import app, main
from ditr.data.dataset import Dataset
from ditr.errors import Code, DitrError, Interrupted
from ditr.record.folder import Record
from ditr.runner.check import SpecCheck
from ditr.runner.check_subject import CheckRequest

PASSED = Check(stage=3, name="s8_values", value=2e-7, limit="<= 0.001", passed=True, detail="scene0000_00_0")
FAILED = Check(
    stage=3,
    name="s8_voxels",
    value=12,
    limit="= 13",
    passed=False,
    detail="1 that only one side has, scene0000_00_0",
)
BROKEN = Check(
    stage=4,
    name="completed",
    value=None,
    limit="without an error",
    passed=False,
    detail="ValueError: no\nthe traceback is in log.txt",
)


def put(monkeypatch: pytest.MonkeyPatch, *found: SpecCheck | BaseException) -> list[CheckRequest]:
    """Answers in the place of the checks; returns what is asked for."""
    given: list[CheckRequest] = []

    def check_all(specs: Sequence[object], *, asked: CheckRequest, **named: Any) -> Iterator[SpecCheck]:
        given.append(asked)
        for one in found:
            if isinstance(one, BaseException):
                raise one
            yield one

    monkeypatch.setattr(command, "check_all", check_all)
    return given


def checked(*checks: Check, **other: Any) -> SpecCheck:
    folder = Record(Path("runs/bifusion-check-0123456789"))
    return SpecCheck(
        **{"name": "bifusion", "asked": CheckRequest(stages=(3, 4)), "checks": checks, "folder": folder, **other}
    )


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", "specs/bifusion.yaml", *arguments])


def test_all_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    given = put(
        monkeypatch, checked(PASSED, Check(stage=4, name="up_s8_moved", value=0.5, limit="reported", passed=True))
    )
    ended = run("--frames", "3", "--stage", "4,3")
    assert ended.exit_code == 0
    assert given == [CheckRequest(stages=(3, 4), frames=3)]
    assert "bifusion, stage 3 pyramid: 1 check passed\n" in ended.stdout
    assert "recorded in runs/bifusion-check-0123456789" in ended.stdout


def test_a_failure_is_in_the_table_and_in_the_line_of_its_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, checked(PASSED, FAILED, BROKEN, replaced="runs/.replaced/x"))
    ended = run()
    assert ended.exit_code == 1
    assert ended.stdout.splitlines()[1:] == [
        "stage      check      value  limit             result  detail",
        "pyramid    s8_values  2e-07  <= 0.001          pass    scene0000_00_0",
        "pyramid    s8_voxels     12  = 13              FAIL    1 that only one side has, scene0000_00_0",
        "injection  completed      -  without an error  FAIL    ValueError: no",
        "",
        "injection completed:",
        "  ValueError: no",
        "  the traceback is in log.txt",
        "",
        "bifusion, stage 3 pyramid: 1 of 2 checks FAILED: s8_voxels",
        "bifusion, stage 4 injection: 1 of 1 check FAILED: completed",
        "  recorded in runs/bifusion-check-0123456789",
        "  replaced: the same check of before is in runs/.replaced/x",
        "",
    ]


def test_a_stage_without_checks_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, checked(PASSED))
    assert "stage 4 injection: nothing to check in this spec" in run().stdout


def test_a_spec_that_cannot_be_checked_is_a_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    error = DitrError("no folder", code=Code.DATASET, where="here", fix="Make it.")
    put(monkeypatch, checked(PASSED), SpecCheck(name="other", asked=CheckRequest(), error=error))
    ended = run()
    assert ended.exit_code == 2
    assert "other: error[dataset]: here: no folder\n  fix: Make it.\n" in ended.output


def test_what_failed_counts_more_than_what_could_not_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    error = DitrError("no folder", code=Code.DATASET)
    put(monkeypatch, SpecCheck(name="other", asked=CheckRequest(), error=error), checked(FAILED))
    assert run().exit_code == 1


def test_a_bug_names_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ZeroDivisionError("in the middle")
    error.add_note("traceback: somewhere/log.txt")
    put(monkeypatch, SpecCheck(name="other", asked=CheckRequest(), error=error))
    ended = run()
    assert ended.exit_code == 1
    assert "other: failed with ZeroDivisionError: in the middle\n  traceback: somewhere/log.txt" in ended.output


@pytest.mark.parametrize("stop", [Interrupted(), KeyboardInterrupt()])
def test_a_stop_ends_with_130(monkeypatch: pytest.MonkeyPatch, stop: BaseException) -> None:
    put(monkeypatch, checked(PASSED), stop)
    ended = run()
    assert ended.exit_code == 130
    assert "1 check passed" in ended.stdout
    assert "nothing of this spec was recorded" in ended.output


@pytest.mark.parametrize("stage", ["5", "pyramid", "", "1,,2"])
def test_only_real_stages(stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["ditr", "check", "specs/bifusion.yaml", "--stage", stage])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "The stages are 1 features, 2 projection, 3 pyramid, 4 injection" in capsys.readouterr().err


def test_features_check_looks_at_every_map(monkeypatch: pytest.MonkeyPatch) -> None:
    given = put(monkeypatch, checked(PASSED))
    ended = CliRunner().invoke(app, ["features", "check", "specs/bifusion.yaml", "--frames", "2"])
    assert ended.exit_code == 0
    assert given == [CheckRequest(stages=(1,), frames=2, every_map=True)]


def test_from_the_command_to_the_query(monkeypatch: pytest.MonkeyPatch, tiny_dataset: Dataset) -> None:
    """Two specs through the real runner, the stages apart."""

    def run_stage(stage: int, subject: Subject, **named: object) -> Iterator[Check]:
        assert subject.spec.name == "baseline" or subject.maps is not None
        if stage == 1:
            yield Check(stage=1, name="frames", value=len(subject.frames), limit="reported", passed=True)
        else:
            yield from (PASSED, FAILED)

    monkeypatch.setattr(stages, "run_stage", run_stage)
    arguments = ["specs/baseline.yaml", "specs/bifusion.yaml", "--stage", "1,3", "--frames", "2"]
    changes = ["dataset.name=synthrooms_tiny", "checkpoint=null", "tracking.mlflow=false"]
    invoke = CliRunner().invoke
    ended = invoke(app, ["check", *arguments, *(part for change in changes for part in ("--set", change))])
    assert ended.exit_code == 1, ended.output
    sql = "select name, stage, check_name, value, passed from checks order by name, stage, check_name"
    rows = json.loads(invoke(app, ["query", sql, "--format", "json"]).stdout)
    assert [list(row.values()) for row in rows] == [
        [name, *check]
        for name in ("baseline", "bifusion")
        for check in ((1, "frames", 2.0, True), (3, "s8_values", 2e-7, True), (3, "s8_voxels", 12.0, False))
    ]
    listed = invoke(app, ["ls"]).stdout.splitlines()
    assert [line.split()[1:4] for line in listed[1:]] == [["check", "baseline", "0"], ["check", "bifusion", "0"]]
    assert all("1 failed" in line for line in listed[1:])
    assert "2 records" in invoke(app, ["results", "rebuild"]).stdout
    assert len(json.loads(invoke(app, ["query", sql, "--format", "json"]).stdout)) == 6
