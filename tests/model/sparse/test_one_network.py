"""One state dict on both engines: the names and shapes are MinkowskiEngine's own, and the numbers agree."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from ditr.model.res16unet import Res16UNet
from ditr.model.sparse import BatchNorm, Convolution, Voxels
from ditr.model.sparse.minkowski import ME
from ditr.spec.models import BackboneSpec, Engine
from tests.reference.clouds import by_place

SPEC = BackboneSpec(planes=(4, 6, 8, 10, 12, 10, 8, 6), layers=(1,) * 8, stem_channels=5)
TOLERANCE = 1e-5


def shapes(module: Any) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 2), (3, 1), (5, 1)])
def test_a_convolution_has_the_weights_of_minkowski_engine_s(size: Literal[1, 2, 3, 5], stride: int) -> None:
    theirs = ME.MinkowskiConvolution(3, 7, kernel_size=size, stride=stride, dimension=3)
    assert shapes(Convolution(3, 7, size=size)) == shapes(theirs)


def test_an_up_convolution_and_a_norm_have_the_weights_of_minkowski_engine_s() -> None:
    theirs = ME.MinkowskiConvolutionTranspose(3, 7, kernel_size=2, stride=2, dimension=3)
    assert shapes(Convolution(3, 7, size=2, transposed=True)) == shapes(theirs)
    assert shapes(BatchNorm(7, momentum=0.1)) == shapes(ME.MinkowskiBatchNorm(7))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: Convolution(24, 9, size=3), lambda: ME.MinkowskiConvolution(24, 9, kernel_size=3, dimension=3)),
        (
            lambda: Convolution(24, 9, size=2, transposed=True),
            lambda: ME.MinkowskiConvolutionTranspose(24, 9, kernel_size=2, stride=2, dimension=3),
        ),
    ],
    ids=["convolution", "up"],
)
def test_weights_start_as_widely_as_minkowski_engine_s(ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    widest, expected = (float(layer().kernel.detach().abs().max()) for layer in (ours, theirs))
    assert widest == pytest.approx(expected, rel=0.01)


def stirred() -> Res16UNet:
    """No norm is an identity."""
    torch.manual_seed(0)
    net = Res16UNet(SPEC)
    for name, tensor in net.state_dict().items():
        if name.endswith(("running_var", ".bn.weight")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", ".bn.bias")):
            tensor.normal_(std=0.2)
    return net


def assert_near(ours: Tensor, theirs: Tensor, *, what: str, within: float = TOLERANCE) -> None:
    deviation = float((ours - theirs).norm() / theirs.norm())
    assert deviation <= within, f"{what}: {deviation:.1e}"


def test_a_network_in_evaluation(by_engine: dict[Engine, Voxels]) -> None:
    net = stirred().eval()
    with torch.no_grad():
        found = {engine: net(voxels.tensor) for engine, voxels in by_engine.items()}
    ours, theirs = (found[engine].features[by_place(found[engine].voxels)] for engine in ("triton", "minkowski"))
    assert_near(ours, theirs, what="out")


def test_a_network_in_training(by_engine: dict[Engine, Voxels]) -> None:
    """The loss, its gradients by all weights, and what the norms keep."""
    nets, losses = {}, {}
    for engine, voxels in by_engine.items():
        nets[engine] = net = deepcopy(stirred())
        out = net(voxels.tensor)
        loss = (
            (out.features[by_place(out.voxels)].sigmoid() - torch.linspace(0, 1, out.features.shape[1])).square().mean()
        )
        loss.backward()
        losses[engine] = loss.detach()
    assert_near(losses["triton"], losses["minkowski"], what="loss")
    theirs = nets["minkowski"]
    gradients = [torch.cat([weight.grad.flatten() for weight in net.parameters()]) for net in nets.values()]
    assert_near(*gradients, what="gradient")
    for name, weight in nets["triton"].named_parameters():
        wanted = theirs.get_parameter(name).grad
        assert weight.grad is not None, name
        assert wanted is not None, name
        assert_near(weight.grad, wanted, what=name, within=1e-4)
    for name, buffer in nets["triton"].named_buffers():
        assert_near(buffer.double(), theirs.get_buffer(name).double(), what=name)
