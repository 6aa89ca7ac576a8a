"""A convolution and the norm after it, by an engine and by dense torch: out, gradients, running statistics."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ditr.model.sparse import BatchNorm, Convolved, SparseTensor, VoxelSet
from tests.reference import dense
from tests.reference.clouds import by_place, places, rows_in

Found = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A convolution of a kernel from one stride to one, and what is done with it."""

    offsets: int
    channels: tuple[int, int]
    stride: int = 1
    onto: int = 1
    training: bool = True
    shortcut: bool = False
    relu: bool = True

    def __str__(self) -> str:
        said = {"training": self.training, "shortcut": self.shortcut, "relu": self.relu}
        return "-".join([f"{self.offsets}x{self.stride}to{self.onto}", *(name for name, on in said.items() if on)])

    @property
    def differentiable(self) -> bool:
        """The stem passes no gradient on."""
        return self.offsets != 125


@dataclass(frozen=True)
class Inputs:
    """Of a case, in float64, rows in the order of their places."""

    case: Case
    values: Tensor
    kernel: Tensor
    shortcut: Tensor | None
    of_out: Tensor
    norm: nn.BatchNorm1d

    @classmethod
    def of(cls, case: Case, *, rows: int, rows_out: int) -> Inputs:
        torch.manual_seed(3)
        channels_in, channels_out = case.channels
        norm = nn.BatchNorm1d(channels_out, momentum=0.3).double().train(case.training)
        for one in norm.state_dict().values():
            if one.is_floating_point():
                one.uniform_(0.5, 1.5)
        return cls(
            case=case,
            values=torch.randn(rows, channels_in, dtype=torch.float64),
            kernel=torch.randn((case.offsets, *case.channels) if case.offsets > 1 else case.channels).double() / 4,
            shortcut=torch.randn(rows_out, channels_out, dtype=torch.float64) if case.shortcut else None,
            of_out=torch.randn(rows_out, channels_out, dtype=torch.float64),
            norm=norm,
        )

    def leaves(self, dtype: torch.dtype) -> tuple[Found, nn.BatchNorm1d]:
        norm = deepcopy(self.norm).to(dtype)
        leaves = {"kernel": self.kernel, "values": self.values}
        if self.shortcut is not None:
            leaves["shortcut"] = self.shortcut
        leaves = {name: one.to(dtype, copy=True) for name, one in leaves.items()}
        for name, leaf in leaves.items():
            leaf.requires_grad_(name != "values" or self.case.differentiable)
        return leaves, norm


def of_dense(inputs: Inputs, *, at: VoxelSet, onto: VoxelSet) -> Found:
    leaves, norm = inputs.leaves(torch.float64)
    of_at, of_onto = (dense.Places(torch.tensor(places(one)), one.stride) for one in (at, onto))
    out = norm(dense.convolve(leaves["values"], leaves["kernel"], at=of_at, onto=of_onto))
    out = out + leaves["shortcut"] if inputs.case.shortcut else out
    out = out.relu() if inputs.case.relu else out
    return all_numbers(out, inputs.of_out, leaves, norm)


def of_engine(inputs: Inputs, *, at: VoxelSet, onto: VoxelSet) -> Found:
    leaves, norm = inputs.leaves(torch.float32)
    layer = BatchNorm(len(norm.weight), momentum=0.3, relu=inputs.case.relu)
    layer.bn = norm
    x = SparseTensor(features=rows_in(at, leaves["values"]), voxels=at)
    shortcut = SparseTensor(features=rows_in(onto, leaves["shortcut"]), voxels=onto) if inputs.case.shortcut else None
    out = layer(Convolved(of=x, kernel=leaves["kernel"], onto=onto), shortcut=shortcut)
    assert out.voxels is onto
    return all_numbers(out.features[by_place(onto)], inputs.of_out.float(), leaves, norm)


def all_numbers(out: Tensor, of_out: Tensor, leaves: Found, norm: nn.BatchNorm1d) -> Found:
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    wanted |= {"gamma": norm.weight, "beta": norm.bias}
    gradients = torch.autograd.grad((out * of_out).sum(), list(wanted.values()))
    found = {f"gradient of {name}": one for name, one in zip(wanted, gradients, strict=True)}
    return {"out": out.detach(), **found, **dict(norm.named_buffers())}
