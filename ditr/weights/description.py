"""What a weight file is, from its names, shapes and bookkeeping; no model is needed and nothing of it is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ditr.catalog import sha256_of
from ditr.model.res16unet import Res16UNet
from ditr.spec.models import BackboneSpec
from ditr.weights.file import Container, Inert, WeightFile, read_weight_file
from ditr.weights.names import ADDED_PARTS, PLAIN_PARTS, by_group, first_parts, foreign_layout, prefix_in

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_LISTED = 8
_SHORT = 60


@dataclass(frozen=True, kw_only=True)
class GroupContent:
    """The weights of one part."""

    group: str
    entries: int
    parameters: int
    """Numbers in them, without the statistics of norms."""
    parts: Mapping[str, int]
    """In ``other``, entries by the first part of their names; elsewhere empty."""


@dataclass(frozen=True, kw_only=True)
class BackboneFinding:
    """A Res16UNet, by its shapes."""

    spec: BackboneSpec
    entries: int
    """Entries of a Res16UNet of that size that the file has, in the right shape."""
    expected: int
    """Entries that such a Res16UNet has."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a weight file is and holds."""

    path: Path
    size_bytes: int
    sha256: str
    container: Container
    nested: bool
    """Whether the weights lie under ``state_dict``."""
    format: Literal["mask3d", "esam", "ditr"] | None
    """What ``checkpoint.format`` would be; None for weights of something else."""
    reason: str
    """How that is known."""
    key_prefix: str
    """What ``checkpoint.key_prefix`` would be."""
    groups: tuple[GroupContent, ...]
    shapes: Mapping[str, tuple[int, ...]]
    """Of every entry, by its name in the file."""
    precisions: Mapping[str, int]
    """Entries by the type of their numbers."""
    not_finite: tuple[str, ...]
    """Entries with NaN or infinite values."""
    backbone: BackboneFinding | None
    foreign_kernels: str | None
    """Another library's kernel layout, where the stem has it."""
    fusion: tuple[str, ...]
    """The added parts of a fused model, in words."""
    bookkeeping: Mapping[str, str]
    """Epoch, iteration, versions and the like, where the file says them."""
    contents: Mapping[str, str]
    """What else the top level holds beside weights and bookkeeping, in words."""
    inert: tuple[str, ...]
    """Types and functions that the file names and that were left out."""


def describe(path: Path) -> Description:
    """Reads the whole file and says what it is.

    Raises
    ------
    DitrError: see ``read_weight_file``.
    """
    file = read_weight_file(path)
    prefix = prefix_in(tuple(file.tensors)) or ""
    tensors = {name.removeprefix(prefix): tensor for name, tensor in file.tensors.items()}
    format, reason = _recognise(file, tensors)
    return Description(
        path=path,
        size_bytes=path.stat().st_size,
        sha256=sha256_of(path),
        container=file.container,
        nested=file.nested,
        format=format,
        reason=reason,
        key_prefix=prefix,
        groups=_groups(tensors),
        shapes={name: tuple(tensor.shape) for name, tensor in file.tensors.items()},
        precisions=dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())),
        not_finite=tuple(name for name, tensor in file.tensors.items() if not _is_finite(tensor)),
        backbone=_backbone(tensors),
        foreign_kernels=_foreign_kernels(tensors),
        fusion=_fusion(tensors),
        bookkeeping=_bookkeeping(file.contents),
        contents={name: _in_words(value) for name, value in file.contents.items() if not _is_short(value)},
        inert=file.inert,
    )


def _recognise(file: WeightFile, tensors: Mapping[str, Tensor]) -> tuple[Literal["mask3d", "esam", "ditr"] | None, str]:
    groups = by_group(tensors)
    if not tensors:
        return None, "there are no tensors at the top or under state_dict"
    if "backbone" not in groups:
        return None, f"no name holds 'backbone.'; names begin with {', '.join(list(first_parts(tensors))[:6])}"
    if added := [part for part in ADDED_PARTS if part in groups]:
        return "ditr", f"it has ditr's {' and '.join(added)}"
    if not {"pool", "decoder"} & groups.keys():
        return "mask3d", "it has a backbone, and no pool and no decoder of ESAM's"
    if lacks := [part for part in PLAIN_PARTS if part not in groups]:
        return None, f"it has a backbone and no {lacks[0]}"
    if "other" in groups:
        return (
            "esam",
            f"it has backbone, pool, decoder and more, which the single-view model has not: {_others(groups)}",
        )
    if file.container == "safetensors":
        return "ditr", "it has backbone, pool and decoder, as safetensors"
    return "esam", "it has backbone, pool and decoder, in a torch file"


def _others(groups: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{part} ({count})" for part, count in first_parts(groups["other"]).items())


def _groups(tensors: Mapping[str, Tensor]) -> tuple[GroupContent, ...]:
    return tuple(
        GroupContent(
            group=group,
            entries=len(names),
            parameters=sum(tensors[name].numel() for name in names if name.rpartition(".")[2] not in _BUFFERS),
            parts=first_parts(names) if group == "other" else {},
        )
        for group, names in by_group(tensors).items()
    )


def _backbone(tensors: Mapping[str, Tensor]) -> BackboneFinding | None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    stem = shapes.get("backbone.conv0p1s1.kernel", ())
    kernels = [shapes.get(f"backbone.block{block}.0.conv1.kernel", ()) for block in range(1, 9)]
    if any(len(shape) != 3 or shape[-1] == 0 for shape in (stem, *kernels)):
        return None
    blocks = {tuple(name.split(".")[1:3]) for name in shapes if name.startswith("backbone.block")}
    layers = [sum(block == f"block{number}" for block, _ in blocks) for number in range(1, 9)]
    spec = BackboneSpec(planes=tuple(shape[-1] for shape in kernels), layers=tuple(layers), stem_channels=stem[-1])
    wanted = {f"backbone.{name}": tuple(tensor.shape) for name, tensor in Res16UNet(spec).state_dict().items()}
    matching = sum(shapes.get(name) == shape for name, shape in wanted.items())
    return BackboneFinding(spec=spec, entries=matching, expected=len(wanted))


def _foreign_kernels(tensors: Mapping[str, Tensor]) -> str | None:
    """By the stem, whose sizes are known but for its width: 5 x 5 x 5 and 3 channels in."""
    for name in ("backbone.conv0p1s1.kernel", "backbone.conv0p1s1.weight"):
        shape = tuple(tensors[name].shape) if name in tensors else ()
        for width in sorted(set(shape)):
            if layout := foreign_layout(shape, wanted=(125, 3, width)):
                return layout
    return None


def _fusion(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    words = []
    projections = {
        name.split(".")[2].removeprefix("stride"): tensor
        for name, tensor in tensors.items()
        if name.startswith("injection.projections.") and name.endswith(".linear.weight")
    }
    if projections:
        channels = next(iter(projections.values())).shape[-1]
        norm = ", with norms" if any(name.startswith("injection.") and ".norm." in name for name in tensors) else ""
        words.append(f"injection of {channels} channels at strides {', '.join(projections)}{norm}")
    adapter = tensors.get("bifusion.adapt_2d.0.weight")
    if adapter is not None and adapter.ndim == 2:
        words.append(f"bifusion of {adapter.shape[1]} channels, width {adapter.shape[0]}")
    stem = tensors.get("stem.projection.linear.weight")
    if stem is not None and stem.ndim == 2:
        words.append(f"stem fusion of {stem.shape[1]} channels")
    return tuple(words)


def _bookkeeping(contents: Mapping[str, object]) -> dict[str, str]:
    """Short values of the top level and of ``meta``, which mmengine writes."""
    meta = contents.get("meta")
    inner = {str(name): value for name, value in meta.items()} if isinstance(meta, Mapping) else {}
    return {name: str(value) for name, value in {**contents, **inner}.items() if _is_short(value)}


def _in_words(value: object) -> str:
    if value is Inert or isinstance(value, Inert):
        return "left out"
    if isinstance(value, Mapping):
        names = [name for name in value if isinstance(name, str)]
        listed = len(names) == len(value) <= _LISTED
        return ", ".join(names) if listed and names else f"{len(value)} entries"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return str(value) if _is_short(value) else f"a {type(value).__name__}"


def _is_short(value: object) -> bool:
    return isinstance(value, str | int | float) and len(str(value)) <= _SHORT and "\n" not in str(value)


def _is_finite(tensor: Tensor) -> bool:
    return tensor.is_sparse or tensor.is_quantized or tensor.is_meta or bool(torch.isfinite(tensor).all())
