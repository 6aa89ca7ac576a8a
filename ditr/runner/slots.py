"""Where runs go that are under way at once: so many on the CPU, or on each GPU that is named."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ditr.errors import Code, DitrError
from ditr.runner.execution import pick_device, torch_device
from ditr.runner.plan import PlannedRun
from ditr.spec.execution import on_device
from ditr.spec.load import LoadedSpec
from ditr.spec.models import Device


@dataclass(frozen=True)
class Slot:
    """A place where one job runs at a time."""

    gpu: str | None
    """What CUDA_VISIBLE_DEVICES is to say, or None for the CPU."""
    ranks: int = 1
    """As many as it names GPUs."""

    @property
    def device(self) -> Device:
        return "cpu" if self.gpu is None else "cuda"


def slots_of(*, jobs: int | None, gpus: str | None, each: int = 1) -> tuple[Slot, ...]:
    """The places that ``--jobs`` or ``--gpus`` asks for; where neither is given, none, or the one of several GPUs.

    GPUs are numbered as torch numbers them: where CUDA_VISIBLE_DEVICES hides some, the others count from 0.

    Parameters
    ----------
    each: so many GPUs a run takes.

    Raises
    ------
    DitrError: both are given, or ``gpus`` is no list of GPUs that there are, or not of so many times ``each``.
    """
    if gpus is None and (jobs is not None or each == 1):
        return (Slot(None),) * (jobs or 0)
    if gpus is None:
        gpus = ",".join(map(str, range(each)))
    if jobs is not None:
        raise _refused("--jobs is for runs on the CPU, --gpus for those on GPUs", "Give one of them.")
    if not re.fullmatch(r"\d+(,\d+)*", gpus):
        raise _refused(f"--gpus {gpus}: not a list of GPUs", "Give their numbers, such as --gpus 0,1.")
    visible = _visible_gpus()
    numbers = [int(number) for number in gpus.split(",")]
    if max(numbers) >= len(visible):
        there = f"there are {len(visible)}, counted from 0" if visible else "torch sees none"
        fix = "Name those that there are, or use --jobs for the CPU; `ditr doctor` says what is installed."
        raise _refused(f"--gpus {gpus}: there is no GPU {max(numbers)}, {there}", fix)
    if len(numbers) % each:
        what = f"--gpus {gpus}: each run takes {each} GPUs (execution.gpus), and these are {len(numbers)}"
        raise _refused(what, f"Name a multiple of {each}, or set execution.gpus to 1.")
    groups = (numbers[first : first + each] for first in range(0, len(numbers), each))
    return tuple(Slot(",".join(visible[number] for number in group), ranks=each) for group in groups)


def gpus_of_each(specs: Sequence[LoadedSpec]) -> int:
    """GPUs that each run takes, by what the specs say; one where they are computed on the CPU.

    Raises
    ------
    DitrError: they say different numbers, or ask for a device that is not there.
    """
    executions = [(one.spec.execution, one.origins) for one in specs]
    wanted = {
        execution.gpus for execution, origins in executions if torch_device(execution, origins=origins).type == "cuda"
    }
    if len(wanted) > 1:
        what = f"execution.gpus is {' and '.join(map(str, sorted(wanted)))} in specs of one command"
        raise _refused(what, "Run them by commands of their own, or set it for all: --set execution.gpus=2.")
    return wanted.pop() if wanted else 1


def require_fit(planned: Sequence[PlannedRun], *, slots: Sequence[Slot]) -> None:
    """``execution.device: auto`` takes any place.

    Raises
    ------
    DitrError: a run asks for another device than its place, or for what ``pick_device`` refuses.
    """
    if slots:
        option = "--jobs runs on the CPU" if slots[0].gpu is None else "--gpus runs on GPUs"
        require_device(planned, device=slots[0].device, option=option)
    for run in (run for run in planned if run.runs):
        pick_device(on_device(run.spec, slots[0].device) if slots else run.spec, origins=run.origins)


def require_device(planned: Sequence[PlannedRun], *, device: Device, option: str) -> None:
    """``option``: what decides the device, in words.

    Raises
    ------
    DitrError: a run asks for another one.
    """
    for run in (run for run in planned if run.runs):
        asked = run.spec.execution.device
        if asked not in ("auto", device):
            raise DitrError(
                f"execution.device is {asked}, and {option}",
                code=Code.ENVIRONMENT,
                where=str(run.source),
                fix="Set execution.device to auto, or leave the option out.",
            )


def _visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each GPU that torch sees, in torch's order."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def _refused(what: str, fix: str) -> DitrError:
    return DitrError(what, code=Code.ENVIRONMENT, fix=fix)
