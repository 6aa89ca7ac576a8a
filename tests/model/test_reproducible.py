"""Where a model gives the same bits twice: not where nothing orders an engine's sums, and never on another engine's
device."""

from __future__ import annotations

import pytest
import torch

from ditr.model.reproducible import reproducible, where_bits_repeat
from ditr.spec.models import Engine

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("engine", "device", "where"),
    [("minkowski", CPU, CPU), ("minkowski", GPU, CPU), ("triton", GPU, GPU), ("triton", CPU, CPU)],
)
def test_a_triton_model_stays_on_its_gpu_and_minkowskis_goes_to_the_cpu(
    engine: Engine, device: torch.device, where: torch.device
) -> None:
    assert where_bits_repeat(device, engine=engine) == where
    with reproducible(device, engine=engine):
        assert torch.are_deterministic_algorithms_enabled() == (where == device)
