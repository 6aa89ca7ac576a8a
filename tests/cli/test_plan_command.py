from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ditr.cli import plan as command
from ditr.cli.main import app
from ditr.data.dataset import Dataset
from ditr.errors import DitrError
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
    # 3 steps of 1500 ms, for which loaders keep up, and 2 frames of 100 ms evaluated twice; 4 maps of 500 ms
    assert f"take {(4 * (3 * 1.5 + 2 * 0.2) + 4 * 0.5) / 3600:.3g} CPU-hours" in done.output


def test_what_is_not_known_is_said(tiny_dataset: Dataset, probed: list[str]) -> None:
    done = CliRunner().invoke(app, ["plan", SPECS[2], "--probe"])
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert ["bifusion", "3", "-", "-", "-", "872", "-", "-", "-", "-", "-"] in lines
    assert ["bifusion", "-", "-", "-", "-", "-", "-", "-"] in lines
    assert "where data are not on this machine or not made yet, what depends on them is not known (-)" in done.output
    assert probed == []


def test_more_hours_than_the_budget_are_refused_with_what_takes_most(tiny_dataset: Dataset, probed: list[str]) -> None:
    command = ["plan", *SPECS[:2], "--set", "seeds=[0, 1]", *TINY, "--budget"]
    refused = CliRunner().invoke(app, [*command, "0.001h"]).exception
    assert isinstance(refused, DitrError)
    each = "0.00272 by 2 of baseline, 0.00272 by 2 of bifusion"
    assert refused.what == f"4 runs take 0.006 CPU-hours, and 0.001 are allowed; most of it: {each}"
    assert CliRunner().invoke(app, [*command, "0.01h"]).exit_code == 0


@pytest.mark.parametrize(
    ("budget", "what"), [("40", "'40' is no number of hours"), ("40h", "cannot be measured here: bifusion")]
)
def test_a_budget_that_cannot_be_held_is_refused(probed: list[str], budget: str, what: str) -> None:
    refused = CliRunner().invoke(app, ["plan", SPECS[2], "--budget", budget]).exception
    assert isinstance(refused, DitrError)
    assert what in refused.what
