"""What the machine says no to is one message; what the code should have foreseen keeps its traceback."""

from __future__ import annotations

import sys

import pytest

from ditr.cli import main as cli


def said_of(error: OSError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    def fail(obj: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    return capsys.readouterr().err


def test_a_full_disk_is_a_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = said_of(OSError(28, "No space left on device", "/data/x.bin"), monkeypatch, capsys)
    assert said == (
        "error[environment]: /data/x.bin: no space left on device\n  fix: make room there, and give the command again\n"
    )


def test_a_folder_in_the_place_of_a_file_may_be_moved_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who named neither of the two, as of what ditr keeps, can name no other."""
    said = said_of(IsADirectoryError(21, "Is a directory", "/cache/checks/x.json"), monkeypatch, capsys)
    assert "/cache/checks/x.json: is a directory" in said
    assert "move the folder away" in said


def test_a_name_of_5000_characters_is_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ditr", "validate", "a" * 5000])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "aaa... (5,000 characters): file name too long" in said
    assert len(said) < 500


def test_a_bug_stays_a_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError):
        said_of(FileNotFoundError(2, "No such file or directory", "x"), monkeypatch, capsys)
