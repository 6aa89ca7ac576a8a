from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ditr.errors import DitrError
from ditr.paths import project_dir
from ditr.runner.plan import PlannedRun, plan
from ditr.runner.slots import Slot, gpus_of_each, require_fit, slots_of
from ditr.spec.load import LoadedSpec, load_spec
from ditr.spec.models import Device
from ditr.spec.registry import Registry
from tests.reference.machines import Machine, machine  # noqa: F401

REGISTRY = Registry()


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_named_twice_takes_two_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slots_of(jobs=None, gpus=None) == ()
    assert slots_of(jobs=2, gpus=None) == (Slot(None), Slot(None))
    assert slots_of(jobs=None, gpus="0,0,1") == (Slot("0"), Slot("0"), Slot("1"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert slots_of(jobs=None, gpus="1,0") == (Slot("7"), Slot("5")), "those that the user's shell shows, in its order"


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("jobs", "gpus", "says"),
    [
        (2, "0", "--jobs is for runs on the CPU, --gpus for those on GPUs"),
        (None, "0;1", "--gpus 0;1: not a list of GPUs"),
        (None, "", "--gpus : not a list of GPUs"),
        (None, "gpu0", "--gpus gpu0: not a list of GPUs"),
        (None, "0,2", "--gpus 0,2: there is no GPU 2, there are 2, counted from 0"),
    ],
)
def test_a_senseless_choice_of_places_is_one_message(jobs: int | None, gpus: str, says: str) -> None:
    with pytest.raises(DitrError) as raised:
        slots_of(jobs=jobs, gpus=gpus)
    assert (raised.value.what, bool(raised.value.fix)) == (says, True)


def test_without_a_gpu_none_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DitrError, match="there is no GPU 0, torch sees none"):
        slots_of(jobs=None, gpus="0")


@pytest.mark.parametrize(
    ("device", "slot", "says"),
    [
        ("cuda", Slot(None), "execution.device is cuda, and --jobs runs on the CPU"),
        ("cpu", Slot("0"), "execution.device is cpu, and --gpus runs on GPUs"),
    ],
)
def test_a_run_is_not_put_where_its_spec_does_not_want_it(
    tmp_path: Path,
    machine: Machine,  # noqa: F811
    device: str,
    slot: Slot,
    says: str,
) -> None:
    machine(gpu=True)

    def planned(device: str, place: Device | None = None) -> tuple[PlannedRun, ...]:
        spec = load_spec(
            project_dir() / "specs/baseline.yaml", registry=REGISTRY, overrides=[f"execution.device={device}"]
        )
        return plan([spec], registry=REGISTRY, runs=tmp_path, force=False, device=place)

    require_fit(planned("auto", slot.device), slots=[slot])
    require_fit(planned(device), slots=[])
    require_fit([replace(run, status="finished") for run in planned(device)], slots=[slot])
    with pytest.raises(DitrError, match=says):
        require_fit(planned(device), slots=[slot])


@pytest.mark.usefixtures("two_gpus")
def test_a_run_of_several_gpus_takes_a_place_of_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slots_of(jobs=None, gpus=None, each=2) == (Slot("0,1", ranks=2),)
    assert slots_of(jobs=None, gpus="1,0", each=2) == (Slot("1,0", ranks=2),)
    for gpus, each, says in (("0", 2, "each run takes 2 GPUs"), (None, 3, "there is no GPU 2, there are 2")):
        with pytest.raises(DitrError, match=says):
            slots_of(jobs=None, gpus=gpus, each=each)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert slots_of(jobs=None, gpus="0,1,2,3", each=2) == (Slot("0,1", ranks=2), Slot("2,3", ranks=2))


def test_how_many_gpus_a_run_takes_is_one_number_of_those_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def specs(*gpus: int) -> list[LoadedSpec]:
        file = project_dir() / "specs/baseline.yaml"
        return [load_spec(file, registry=REGISTRY, overrides=[f"execution.gpus={count}"]) for count in gpus]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpus_of_each(specs(4, 2)) == 1, "of no meaning on the CPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpus_of_each(specs(4, 4)) == 4
    with pytest.raises(DitrError, match="2 and 4 in specs of one command"):
        gpus_of_each(specs(4, 2))
