"""The state file: complete, replaced at once, and refused when it is damaged or someone else's."""

import errno
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from torch import nn

from ditr.errors import Code, DitrError
from ditr.machine_errors import MachineError
from ditr.training.state import Ledger, TrainingState

PLAN = {"seed": 0, "epochs": 4}


def trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def test_weights_buffers_optimizer_and_ledger_come_back_exactly(tmp_path: Path) -> None:
    state = TrainingState(tmp_path / "deep" / "state.pt")
    model, optimizer = trained(0)
    ledger = Ledger(epoch=2, validated=2, peak_mem_mb=17.5)
    ledger.add({"loss": 0.1, "step_ms": 3.0}, timed=True)
    ledger.add({"loss": 0.2, "step_ms": 5.0, "rare": 1.0}, timed=True)
    state.save(ledger, model=model, optimizer=optimizer, plan=PLAN)

    other, other_optimizer = trained(1)
    assert state.restore(model=other, optimizer=other_optimizer, plan=PLAN) == ledger
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    for key, moments in optimizer.state_dict()["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(other_optimizer.state_dict()["state"][key][name], tensor), name
    assert [path.name for path in state.path.parent.iterdir()] == ["state.pt"]


def test_ledger_means_are_over_the_steps_that_had_the_metric() -> None:
    ledger = Ledger()
    ledger.add({"loss": 1.0, "step_ms": 2.0}, timed=True)
    ledger.add({"loss": 4.0, "step_ms": 8.0, "rare": 7.0}, timed=False)
    assert ledger.means() == {"loss": 2.5, "step_ms": 5.0, "rare": 7.0}
    assert (ledger.timed_ms, ledger.timed_steps) == (2.0, 1), "a step in which kernels are compiled is not timed"


def test_without_a_file_training_starts_fresh(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert TrainingState(tmp_path / "none.pt").restore(model=model, optimizer=optimizer, plan=PLAN) == Ledger()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_failing_save_keeps_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = TrainingState(tmp_path / "state.pt")
    model, optimizer = trained(0)
    state.save(Ledger(epoch=1), model=model, optimizer=optimizer, plan=PLAN)

    def fail(content: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="space"):
        state.save(Ledger(epoch=2), model=model, optimizer=optimizer, plan=PLAN)
    assert state.restore(model=model, optimizer=optimizer, plan=PLAN).epoch == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_full_disk_is_told_with_the_bytes_that_the_state_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = trained(0)
    path = tmp_path / "state.pt"
    numbers = sum(weight.numel() for weight in model.parameters())

    def full(content: object, file: BinaryIO) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(MachineError, match=r"at least ([\d,]+) bytes, and [\d,]+ are free") as error:
        TrainingState(path).save(Ledger(), model=model, optimizer=optimizer, plan=PLAN)
    least = int(str(error.value).split("at least ")[1].split(" bytes")[0].replace(",", ""))
    assert 4 * 3 * numbers <= least < 4 * 3 * numbers + 200, "AdamW keeps two numbers of each weight"


def test_another_trainings_state_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    state = TrainingState(tmp_path / "state.pt")
    model, optimizer = trained(0)
    state.save(Ledger(), model=model, optimizer=optimizer, plan=PLAN)
    with pytest.raises(DitrError, match="epochs was 4, now 8") as error:
        state.restore(model=model, optimizer=optimizer, plan=PLAN | {"epochs": 8})
    assert error.value.code is Code.RUN


def test_a_state_of_another_model_is_refused(tmp_path: Path) -> None:
    state = TrainingState(tmp_path / "state.pt")
    model, optimizer = trained(0)
    state.save(Ledger(), model=model, optimizer=optimizer, plan=PLAN)
    wider = nn.Linear(7, 7)
    with pytest.raises(DitrError, match="does not fit the model"):
        state.restore(model=wider, optimizer=torch.optim.AdamW(wider.parameters()), plan=PLAN)


def test_a_cut_state_and_one_of_an_older_version_are_refused_with_their_path(tmp_path: Path) -> None:
    """Whatever else damage does to the file is in tests/test_damage.py."""
    state = TrainingState(tmp_path / "state.pt")
    model, optimizer = trained(0)
    state.save(Ledger(), model=model, optimizer=optimizer, plan=PLAN)
    whole = state.path.read_bytes()
    without_digest = torch.load(state.path, weights_only=True)
    for end in (0, 10, 100, len(whole) - 200, len(whole) - 1):
        state.path.write_bytes(whole[:end])
        with pytest.raises(DitrError, match=r"ends in no digest|does not match its digest") as error:
            state.restore(model=model, optimizer=optimizer, plan=PLAN)
        assert error.value.where == str(state.path)
    torch.save(without_digest, state.path)
    with pytest.raises(DitrError, match="an older version wrote it"):
        state.restore(model=model, optimizer=optimizer, plan=PLAN)


def test_loading_never_runs_code_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "executed",))  # type: ignore[return-value]

    state = TrainingState(tmp_path / "state.pt")
    model, optimizer = trained(0)
    monkeypatch.setattr(optimizer, "state_dict", Evil)
    state.save(Ledger(), model=model, optimizer=optimizer, plan=PLAN)
    with pytest.raises(DitrError, match="cannot be read"):
        state.restore(model=model, optimizer=optimizer, plan=PLAN)
    assert not (tmp_path / "executed").exists()
