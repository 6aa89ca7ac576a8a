"""What ``ditr eval`` says and with which code it ends; the evaluation itself is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ditr.cli import evaluate as command
from ditr.cli.main import app, main
from ditr.errors import Code, DitrError, Interrupted
from ditr.record.folder import Record
from ditr.runner.evaluate_checkpoint import CheckpointEvaluation
from ditr.runner.inputs import Selection

ARGUMENTS = ["eval", "specs/baseline.yaml", "--checkpoint", "weights.pth"]
RESULT = {"split": "val", "n_frames": 4, "ap": 0.5, "ap50": 0.75, "ap25": 0.8, "infer_ms": 80.0, "peak_mem_mb": 900.0}


def put(monkeypatch: pytest.MonkeyPatch, outcome: CheckpointEvaluation | BaseException) -> list[Selection]:
    asked: list[Selection] = []

    def evaluate(*loaded: object, selection: Selection, **named: object) -> CheckpointEvaluation:
        asked.append(selection)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(command, "evaluate_checkpoint", evaluate)
    return asked


def evaluated(
    *, split_frames: int = 2780, replaced: str | None = None, error: Exception | None = None
) -> CheckpointEvaluation:
    folder = Record(Path("runs/baseline-eval-0123456789"))
    return CheckpointEvaluation(folder=folder, result=RESULT, split_frames=split_frames, replaced=replaced, error=error)


def run(*options: str) -> Result:
    return CliRunner().invoke(app, [*ARGUMENTS, *options])


def test_a_part_of_a_split_cannot_be_taken_for_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = put(monkeypatch, evaluated(replaced="runs/.replaced/x"))
    ended = run("--frames", "4", "--split", "val")
    assert ended.exit_code == 0
    assert asked == [Selection(split="val", frames=4)]
    assert "only 4 of 2,780 frames: no result of the whole split" in ended.stdout
    assert "replaced: the same evaluation of before is in runs/.replaced/x" in ended.stdout


def test_a_whole_split_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = put(monkeypatch, evaluated(split_frames=4))
    ended = run()
    assert asked == [Selection(split="val", frames=None)]
    assert "4 of 4" in ended.stdout
    assert "only" not in ended.stdout


@pytest.mark.parametrize("stop", [Interrupted(), KeyboardInterrupt()])
def test_a_stop_ends_with_130(monkeypatch: pytest.MonkeyPatch, stop: BaseException) -> None:
    put(monkeypatch, stop)
    ended = run()
    assert ended.exit_code == 130
    assert "nothing was recorded; a result of before stays" in ended.output


def test_a_failure_names_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ZeroDivisionError("in the middle")
    error.add_note("traceback: somewhere/log.txt")
    put(monkeypatch, error)
    ended = run()
    assert ended.exit_code == 1
    assert "failed with ZeroDivisionError: in the middle\n  traceback: somewhere/log.txt" in ended.output


def test_a_failure_after_the_result_shows_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, evaluated(error=OSError("no room")))
    ended = run()
    assert ended.exit_code == 1
    assert "0.75" in ended.stdout
    assert "recorded, but failed with OSError: no room" in ended.output


def test_a_mistake_is_one_message_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(monkeypatch, DitrError("a mask3d checkpoint has no decoder", code=Code.CHECKPOINT, fix="Name another."))
    monkeypatch.setattr("sys.argv", ["ditr", *ARGUMENTS])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error[checkpoint]: a mask3d checkpoint has no decoder\n  fix: Name another.\n"


def test_no_frames_are_no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, evaluated())
    assert run("--frames", "0").exit_code == 2


def test_a_folder_of_runs_that_cannot_be_made_is_a_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DITR_RUNS", str(tmp_path / "file" / "runs"))
    monkeypatch.setattr("sys.argv", ["ditr", *ARGUMENTS])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "cannot make the folder of runs" in capsys.readouterr().err
