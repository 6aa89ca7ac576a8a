"""Memory is measured where it is used: beside torch's counter on a GPU, per stretch of work on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ditr.resources import GPU_ALL, GPU_OWN, RESIDENT, GpuMeter, memory_meter, watching


class FakeGpu:
    """A GPU of which others hold 1000 MiB and this process 300 (the context) plus what is allocated."""

    def __init__(self, *, told: bool = True) -> None:
        self.torch, self.peak, self.beside, self.others, self.told = 0.0, 0.0, 0.0, 1000.0, told

    def allocate(self, *, torch: float = 0.0, beside: float = 0.0) -> None:
        self.torch, self.beside = self.torch + torch, self.beside + beside
        self.peak = max(self.peak, self.torch)

    def used_mb(self) -> float:
        return self.others + 300 + self.torch + self.beside

    def own_mb(self) -> float | None:
        return 300 + self.torch + self.beside if self.told else None

    def reserved_mb(self) -> float:
        return self.torch

    def peak_reserved_mb(self) -> float:
        return self.peak

    def forget_peak(self) -> None:
        self.peak = self.torch


class Part(nn.Module):
    """Holds memory beside torch while it runs and as long as its output is in use."""

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def forward(self, x: Tensor) -> Tensor:
        self.gpu.allocate(beside=70)
        return x


class Whole(nn.Module):
    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self.part = Part(gpu)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.part(x)
        self.part.gpu.allocate(beside=-70)  # a map that dies before the model returns
        return y


def test_what_lives_only_while_the_model_runs_counts_and_others_do_not() -> None:
    gpu = FakeGpu()
    meter = GpuMeter(gpu)
    model = Whole(gpu)
    gpu.allocate(torch=40)
    gpu.allocate(torch=-30)
    with watching(meter, model):
        model(torch.zeros(1))
    assert (meter.peak_mb(), meter.of) == (300 + 70 + 40, GPU_OWN)
    model(torch.zeros(1))
    assert meter.peak_mb() == 410, "looked at without being asked"


def test_the_driver_is_asked_once_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = 100.0, 0

    class Counting(GpuMeter):
        def look(self) -> None:
            nonlocal asked
            asked += 1

    meter, model = Counting(FakeGpu()), torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity())
    monkeypatch.setattr("ditr.resources.time.monotonic", lambda: now)
    asked = 0
    with watching(meter, model, every_s=1.0):
        for _ in range(5):
            model(torch.zeros(1))
        assert asked == 1
        now += 1.5
        model(torch.zeros(1))
    assert asked == 2


def test_what_others_take_later_on_a_shared_gpu_is_not_this_processs() -> None:
    gpu = FakeGpu()
    meter = GpuMeter(gpu)
    gpu.others += 16_000
    meter.look()
    assert (meter.peak_mb(), meter.of) == (300, GPU_OWN)


def test_a_new_stretch_forgets_the_peak_but_not_what_is_held() -> None:
    gpu = FakeGpu()
    meter = GpuMeter(gpu)
    gpu.allocate(torch=40)
    gpu.allocate(torch=-30)
    meter.begin()
    assert meter.peak_mb() == 300 + 10


def test_where_the_driver_hides_processes_the_number_is_the_whole_gpus_and_says_so() -> None:
    meter = GpuMeter(FakeGpu(told=False))
    assert (meter.peak_mb(), meter.of) == (1300, GPU_ALL)


def test_on_the_cpu_each_stretch_has_its_own_peak() -> None:
    meter = memory_meter(torch.device("cpu"))
    if meter.of != RESIDENT:
        pytest.skip("this kernel does not reset the high-water mark")
    floor = meter.peak_mb()
    held = np.ones(256 << 17)  # 256 MiB; other tests of this process may give some back meanwhile
    high = meter.peak_mb()
    del held
    meter.begin()
    assert high - floor == pytest.approx(256, abs=64)
    assert meter.peak_mb() - floor < 64
