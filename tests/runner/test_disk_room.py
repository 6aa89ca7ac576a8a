"""A training is refused where the disk cannot hold what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ditr.cli.main import app
from ditr.data.dataset import Dataset
from ditr.errors import DitrError
from ditr.machine_errors import MachineError
from ditr.paths import project_dir, runs_dir
from ditr.record.folder import Record
from ditr.runner import disk_room
from ditr.runner.disk_room import require_room
from ditr.runner.inputs import fresh_model
from ditr.spec.execution import with_engine
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry
from ditr.training.state import Ledger, TrainingState


@pytest.mark.parametrize("resumed", [False, True])
def test_what_is_asked_for_is_what_a_training_writes(
    resumed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_spec(project_dir() / "specs" / "baseline.yaml", registry=Registry()).spec
    model = fresh_model(with_engine(spec, "minkowski"), seed=0, feature_channels=None)
    optimizer = torch.optim.AdamW(model.parameters())
    sum((weight.sum() for weight in model.parameters()), start=torch.zeros(())).backward()
    optimizer.step()
    folder = Record(tmp_path)
    TrainingState(folder.training_state).save(Ledger(), model=model, optimizer=optimizer, plan={})
    written = folder.training_state.stat().st_size  # the first, or the one beside it of a run that goes on
    if not resumed:
        folder.training_state.unlink()
        written *= 2
    monkeypatch.setattr(disk_room, "free_bytes", lambda folder: written)
    require_room(folder, model=model)
    short = int(0.95 * written)  # names and the like are not counted
    monkeypatch.setattr(disk_room, "free_bytes", lambda folder: short)
    with pytest.raises(MachineError, match=rf"writes [\d,]+ bytes .* and {short:,} are free") as refused:
        require_room(folder, model=model)
    assert isinstance(refused.value, DitrError)
    assert refused.value.is_full


def test_a_run_is_refused_before_its_first_step(tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_room, "free_bytes", lambda folder: 2_000_000)
    arm = str(project_dir() / "specs" / "baseline.yaml")
    sets = ["dataset.name=synthrooms_tiny", "checkpoint=null", "execution.device=cpu"]
    done = CliRunner().invoke(app, ["run", arm, *(word for each in sets for word in ("--set", each))])
    assert done.exit_code == 2
    assert "and 2,000,000 are free" in done.output
    (folder,) = runs_dir().glob("baseline-*")
    assert not Record(folder).training_state.exists()
    assert not Record(folder).metrics.exists()
