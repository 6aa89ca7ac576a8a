from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ditr.cli import plan as command
from ditr.cli.main import app
from ditr.data.dataset import Dataset
from ditr.paths import project_dir, runs_dir
from ditr.runner.probe import Probe
from ditr.spec.models import Spec

GOLDEN = Path(__file__).with_name("plan.txt")
SPECS = [str(project_dir() / f"specs/{name}.yaml") for name in ("baseline", "bifusion", "scannet200_sv/bifusion")]
TINY = ["--set", "dataset.name=synthrooms_tiny", "--set", "features.input_size=[70, 98]", "--set", "schedule.epochs=3"]


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the specs that were probed, with measures that are the same everywhere."""
    names: list[str] = []

    def probe(spec: Spec, *, makes_maps: bool) -> Probe:
        names.append(spec.name)
        return Probe(
            device="CPU", step_ms=1500, read_ms=40, frame_ms=100, map_ms=500 if makes_maps else 0, peak_mem_mb=800,
            memory_of="resident memory of the process",
        )  # fmt: skip

    monkeypatch.setattr(command, "probe", probe)
    return names


def test_a_plan_word_for_word(tiny_dataset: Dataset, probed: list[str]) -> None:
    """On two rooms that are there, whose maps are not."""
    done = CliRunner().invoke(app, ["plan", *SPECS[:2], "--set", "seeds=[0, 1]", *TINY, "--probe"])
    assert done.exit_code == 0, done.output
    assert done.output == GOLDEN.read_text()
    assert probed == ["baseline", "bifusion"]
    assert not runs_dir().exists(), "nothing is made"


def test_what_is_not_known_is_said(tiny_dataset: Dataset, probed: list[str]) -> None:
    done = CliRunner().invoke(app, ["plan", SPECS[2], "--probe"])
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert ["bifusion", "3", "-", "-", "-", "872", "-", "-", "-", "-", "-"] in lines
    assert ["bifusion", "-", "-", "-", "-", "-", "-", "-"] in lines
    assert "where data are not on this machine or not made yet, what depends on them is not known (-)" in done.output
    assert probed == []
