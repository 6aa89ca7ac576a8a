"""The parts of a training step, each by itself, and the forward pass of evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from benchmarks.subject import Arm, Times, Training, in_one_piece, wait_for
from ditr.data.batch import Batch
from ditr.model.fusion import BatchFeatures
from ditr.model.precision import computing_in
from ditr.model.reproducible import reproducible
from ditr.model.sparse import Voxels

Result = TypeVar("Result")


def parts_of_step(training: Training, arm: Arm, batch: Batch) -> dict[str, tuple[float, float]]:
    """Milliseconds of the host, and in all, of each part of a step; the device has nothing else to do."""
    model, device, found = training.model, training.device, dict[str, tuple[float, float]]()

    def timed(name: str, part: Callable[[], Result]) -> Result:
        wait_for(device)
        began = time.perf_counter()
        result = part()
        host_ms = 1e3 * (time.perf_counter() - began)
        wait_for(device)
        found[name] = host_ms, 1e3 * (time.perf_counter() - began)
        return result

    with reproducible(device, engine=training.variant.engine):
        there = timed("copy", lambda: arm.inputs.encode(batch.to(device)))
        voxels = timed("voxelise", lambda: model.voxelise(there))
        with computing_in(training.variant.precision, device=device):
            timed("backbone", lambda: _backbone(training, there, voxels))
            again = model.voxelise(there)  # MinkowskiEngine keeps the maps that a pass has made
            output = timed("forward", lambda: model(there, again))
        losses = timed("criterion", lambda: training.criterion(output, there))
        training.optimizer.zero_grad(set_to_none=True)
        timed("backward", lambda: losses.total.backward())
        timed("clip", lambda: clip_grad_norm_(model.parameters(), training.clip))
        training.optimizer.zero_grad(set_to_none=False)  # these gradients are not scaled, and the update is to be timed
        timed("update", training.optimizer.step)
    whole, backbone = found.pop("forward"), found["backbone"]
    found["rest of forward"] = whole[0] - backbone[0], whole[1] - backbone[1]
    return found


def backbone_ms(training: Training, arm: Arm, ready: list[Batch], *, repetitions: int) -> Times:
    device, took = training.device, []
    for number in range(repetitions + 1):
        batch = arm.inputs.encode(ready[number % len(ready)].to(device))
        with reproducible(device, engine=training.variant.engine):
            voxels = training.model.voxelise(batch)
            training.optimizer.zero_grad(set_to_none=True)
            wait_for(device)
            began = time.perf_counter()
            with computing_in(training.variant.precision, device=device):
                out = _backbone(training, batch, voxels)
            out.sum().backward()  # type: ignore[no-untyped-call]
            wait_for(device)
        took.append(1e3 * (time.perf_counter() - began))
    return Times.of(took[1:])


@torch.no_grad()
def forward_ms(training: Training, arm: Arm, *, repetitions: int) -> Times:
    samples, model, device, took = arm.samples(augmented=False), training.model.eval(), training.device, []
    training.optimizer.zero_grad(set_to_none=True)
    for number in [0, *range(repetitions)]:
        batch = in_one_piece(samples, first=number, size=1, device=device).to(device)
        with reproducible(device, engine=training.variant.engine):
            wait_for(device)
            began = time.perf_counter()
            with computing_in(training.variant.precision, device=device):
                model(arm.inputs.encode(batch))
            wait_for(device)
        took.append(1e3 * (time.perf_counter() - began))
    model.train()
    return Times.of(took[1:])


def _backbone(training: Training, batch: Batch, voxels: Voxels) -> Tensor:
    """As ``EsamSingleView.forward`` calls it in training."""
    model = training.model
    points = model.read_2d(batch, statistics={})
    features = None if points is None else BatchFeatures(points=points, in_space=voxels)
    return model.run_backbone(features, voxels).features
