"""Seeds that are added while a difference is open: which, until when, and what a comparison says of it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ditr.cli.main import app
from ditr.cli.study_size import study_text
from ditr.cli.until_decided import run_until_decided
from ditr.errors import DitrError
from ditr.paths import project_dir
from ditr.report.answers import verdict
from ditr.runner.plan import plan
from ditr.runner.run import RunOutcome
from ditr.spec.load import LoadedSpec, load_spec
from ditr.spec.registry import Registry
from tests.reference.finished_runs import Make, compared, make, runs

__all__ = ["make", "runs"]

CHANCES = {"baseline": 0.5, "bifusion": 0.5, "fpn_inject": 0.95}
REGISTRY = Registry()


class Runs:
    """What ``ditr run`` does with specs, but that no run is trained: its models find instances by a chance."""

    def __init__(self, runs: Path, make: Make) -> None:
        self.runs, self.make = runs, make
        self.made: list[list[str]] = []
        self.stops_at = ""

    def __call__(self, specs: Sequence[LoadedSpec]) -> tuple[RunOutcome, ...]:
        planned = plan(specs, registry=REGISTRY, runs=self.runs, force=False)
        self.made.append([])
        for run in planned:
            name = f"{run.spec.name}-s{run.seed}"
            if run.runs and name != self.stops_at:
                file, most = f"{run.spec.name}.yaml", run.spec.max_seeds
                self.make(file, f"max_seeds={most}", chance=CHANCES[run.spec.name], first=run.seed, seeds=1)
                self.made[-1].append(name)
        return tuple(RunOutcome(planned=run, state=run.folder.state()) for run in planned)


@pytest.fixture
def work(runs: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setenv("DITR_RUNS", str(runs))
    return Runs(runs, make)


def specs_of(*names: str, most: int | None = 5) -> list[LoadedSpec]:
    sets = [] if most is None else [f"max_seeds={most}"]
    return [
        load_spec(project_dir() / f"specs/{name}.yaml", registry=REGISTRY, overrides=[*sets, "execution.device=cpu"])
        for name in names
    ]


def test_only_arms_of_open_differences_get_seeds(work: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = run_until_decided(specs_of("baseline", "bifusion", "fpn_inject"), work=work)
    first, *later = work.made
    assert len(first) == 9
    assert later == [["baseline-s3", "baseline-s4", "bifusion-s3", "bifusion-s4"]]
    assert len(outcomes) == 5 + 5 + 3
    said = capsys.readouterr().out
    assert said.count("look ") == 2
    assert "there are no more than 5 seeds: what is not decided stays open" in said

    found = compared(work.runs, "baseline", "bifusion", "fpn_inject")
    null, gain, _ = found.contrasts
    assert null.look
    assert gain.look
    assert (null.look.number, null.look.of, null.difference.num_seeds) == (2, 2, (5, 5))
    assert (gain.look.number, gain.difference.num_seeds, verdict(gain)) == (1, (3, 3), "yes")
    assert any("bifusion - baseline: look 2 of 2, at 5 seeds each" in caveat for caveat in found.caveats)


def test_a_command_that_is_called_again_comes_to_the_same(work: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    work.stops_at = "bifusion-s4"
    run_until_decided(specs_of("baseline", "bifusion"), work=work)
    stopped = capsys.readouterr()
    assert "look 2 of 2 waits for runs that are not finished" in stopped.err
    assert len(work.made) == 2
    work.stops_at = ""
    run_until_decided(specs_of("baseline", "bifusion"), work=work)
    again = capsys.readouterr().out
    assert again.startswith(stopped.out)
    assert work.made[2:] == [[], ["bifusion-s4"]]


def test_looks_that_no_p_could_account_for_are_refused(work: Runs) -> None:
    arms = specs_of("baseline", "bifusion")
    for specs, what in (
        (arms[:1], "there is one arm"),
        ([*arms[:1], *specs_of("bifusion", most=None)], "5 in baseline, none in bifusion"),
        ([*arms[:1], *specs_of("bifusion", most=9)], "5 in baseline, 9 in bifusion"),
    ):
        with pytest.raises(DitrError, match=what):
            run_until_decided(specs, work=work)
    assert work.made == []
    forced = CliRunner().invoke(app, ["run", *(str(one.path) for one in arms), "--until-decided", "--force"])
    assert "--force runs finished seeds again" in str(forced.exception)
    work.stops_at = "bifusion-s4"
    run_until_decided(arms, work=work)
    made = len(work.made)
    with pytest.raises(DitrError, match="by a plan of at most 5 seeds, not 9"):
        run_until_decided(specs_of("baseline", "bifusion", most=9), work=work)
    assert work.made[made:] == [[]], "a limit that moves is refused before a run"


def test_how_many_seeds_a_difference_needs_is_said_by_what_is_finished(work: Runs) -> None:
    specs = specs_of("baseline", "bifusion", "fpn_inject")
    work.make("baseline.yaml")
    with pytest.raises(DitrError, match="two each, and 1 of 3 specs have some"):
        study_text(specs, 0.02, registry=REGISTRY)
    work.make("bifusion.yaml")
    coarse, fine = (study_text(specs, effect, registry=REGISTRY).splitlines()[2].split() for effect in (0.5, 0.002))
    assert coarse[:4] == ["bifusion", "-", "baseline", "3"]
    assert coarse[-4:-1] == ["3", "3", "3"]
    assert fine[-8:] == [*[">", "100"] * 3, ">", "10000"]
    with pytest.raises(DitrError, match="more than 0"):
        study_text(specs, 0.0, registry=REGISTRY)
