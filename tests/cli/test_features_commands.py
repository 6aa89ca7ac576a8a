from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from ditr.cli import display
from ditr.cli.display import Lines, duration
from ditr.cli.main import app
from ditr.data.dataset import Dataset
from ditr.errors import Code, DitrError

SPECS = Path(__file__).resolve().parents[2] / "specs"
TINY = ("--set", "dataset.name=synthrooms_tiny", "--set", "features.input_size=[28, 42]")


def ditr(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def cache(tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of this test's own, with the data set but without maps."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "datasets").symlink_to(tiny_dataset.root.parent)
    monkeypatch.setenv("DITR_CACHE", str(folder))
    return folder


def test_maps_are_extracted_listed_and_deleted(cache: Path) -> None:
    made = ditr("features", "extract", SPECS / "fpn_inject.yaml", *TINY)
    assert made.exit_code == 0, made.output
    assert "4 maps of vit_mini14_reg4 made, 0 were there" in made.output
    assert "images/s" in made.output
    assert "4 maps need" in made.output
    (folder,) = (cache / "features").glob("*/*")
    assert str(folder) in made.output
    again = ditr("features", "extract", SPECS / "fpn_inject.yaml", SPECS / "bifusion.yaml", *TINY)
    assert again.output.count("0 maps of vit_mini14_reg4 made, 4 were there") == 2
    assert "need" not in again.output
    name = f"{folder.parent.name}/{folder.name}"
    row = ditr("features", "ls").output.splitlines()[1].split()
    assert row[:8] == [name, "synthrooms_tiny", "vit_mini14_reg4", "28x42", "-1", "float32", "4", "4"]
    assert row[-1] == "complete"
    next(folder.glob("*.npy")).unlink()
    assert ditr("features", "ls").output.splitlines()[1].split()[-3:] != row[-3:]
    assert ditr("features", "ls").output.splitlines()[1].endswith("partial")
    deleted = ditr("features", "rm", name)
    assert deleted.exit_code == 0, deleted.output
    assert f"deleted {name}: 3 maps" in deleted.output
    assert list((cache / "features").iterdir()) == []
    assert "no feature maps" in ditr("features", "ls").output


def test_an_unknown_store_is_an_error_with_close_names_and_nothing_is_deleted(cache: Path) -> None:
    ditr("features", "extract", SPECS / "fpn_inject.yaml", *TINY)
    (folder,) = (cache / "features").glob("*/*")
    name = f"{folder.parent.name}/{folder.name}"
    wrong = ditr("features", "rm", name, name.replace("mini", "mni"))
    assert isinstance(wrong.exception, DitrError)
    assert wrong.exception.code == Code.FEATURES
    assert name in wrong.exception.fix
    with FileLock(folder / ".lock"):
        held = ditr("features", "rm", name)
    assert isinstance(held.exception, DitrError)
    assert "a process is making maps here" in str(held.exception)
    assert len(list(folder.glob("*.npy"))) == 4


def test_what_reads_no_stored_maps_says_so(cache: Path) -> None:
    online = ditr("features", "extract", SPECS / "fpn_inject.yaml", *TINY, "--set", "features.mode=online")
    assert online.exit_code == 0, online.output
    assert "nothing to make" in online.output
    assert not (cache / "features").exists()
    without = ditr("features", "extract", SPECS / "baseline.yaml", *TINY)
    assert without.exit_code == 0, without.output
    assert "no fusion: its runs read no 2D features" in without.output
    assert "4 maps of vit_mini14_reg4 made" in without.output


def test_a_device_that_is_not_there_is_an_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = ditr("features", "extract", SPECS / "fpn_inject.yaml", *TINY, "--set", "execution.device=cuda")
    assert isinstance(result.exception, DitrError)
    assert result.exception.code == Code.ENVIRONMENT


def test_off_a_terminal_long_work_shows_its_speed_and_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    lines = Lines()
    for seconds, done in ((0, 0), (5, 50), (11, 220), (12, 240), (30, 1000)):
        now[0] = 100.0 + seconds
        lines.progress("2D features", done, 1000)
    assert capsys.readouterr().out == "  2D features: 220/1000, 20/s, 39 s left\n"
    assert [duration(seconds) for seconds in (7.6, 200, 7500)] == ["8 s", "3 min 20 s", "2 h 5 min"]
