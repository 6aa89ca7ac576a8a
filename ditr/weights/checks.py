"""What must hold of a weight file before any of it enters the model; each check names what it found and the fix."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ditr.weights.file import WeightFile, file_error
from ditr.weights.names import ADDED_PARTS, PLAIN_PARTS, by_group, foreign_layout, group_of, prefix_in

_SHOWN = 4
_REQUIRED = {"mask3d": ("backbone",), "esam": PLAIN_PARTS, "ditr": PLAIN_PARTS}
_LAYOUT_FIX = (
    "convert the kernels to MinkowskiEngine's layout: (kernel volume, in, out) with the first spatial axis fastest, "
    "and (in, out) where the volume is 1"
)


def require_tensors(file: WeightFile) -> None:
    """The file has weights, and they are plain tensors."""
    if file.no_tensors:
        what = f"{len(file.no_tensors)} entries of `state_dict` are not tensors: {_some(file.no_tensors)}"
        raise file_error(what, path=file.path, fix="re-save the state dict with tensors only")
    if not file.tensors:
        held = f"; its top level holds {_some(list(file.contents))}" if file.contents else ""
        what = f"the file holds no weights{held}"
        raise file_error(what, path=file.path, fix="name a file with a state dict, at the top or as `state_dict`")
    odd = [name for name, tensor in file.tensors.items() if not _is_plain(tensor)]
    if odd:
        what = f"{len(odd)} entries are sparse, quantised, complex or without values: {_some(odd)}"
        raise file_error(what, path=file.path, fix="re-save them as dense numbers")


def require_under_prefix(file: WeightFile, *, prefix: str) -> None:
    """The backbone's names start with the prefix."""
    names = tuple(file.tensors)
    if any(name.startswith(f"{prefix}backbone.") for name in names):
        return
    found = prefix_in(names)
    what = f"no entry of the file starts with '{prefix}backbone.'"
    if found is None:
        what += f", and none is of a backbone; it has {_some(names)}"
        raise file_error(what, path=file.path, fix="name a file with the weights of this model")
    what += f"; the backbone's names there start with '{found}backbone.'"
    field = f'set checkpoint.key_prefix: "{found}"' if found else "leave checkpoint.key_prefix out"
    raise file_error(what, path=file.path, fix=f"{field} (for a registry checkpoint: key_prefix of its entry)")


def require_format(names: Sequence[str], *, path: Path, format: str) -> None:
    """A mask3d file has no pool and no decoder: taken from a file of another format they would be set unannounced."""
    more = by_group(names).keys() & {"pool", "decoder"}
    if format == "mask3d" and more:
        what = f"the file holds {' and '.join(sorted(more, reverse=True))} too, which mask3d weights do not have"
        raise file_error(what, path=path, fix="set checkpoint.format to esam, or to ditr for weights that ditr saved")


def require_same_shapes(matched: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, path: Path) -> None:
    """Shapes and kinds of numbers are the model's; kernels in another layout are told from those of another size."""
    wrong = {name: tensor for name, tensor in matched.items() if tensor.shape != wanted[name].shape}
    if wrong:
        pairs = [f"{name} {tuple(tensor.shape)}, here {tuple(wanted[name].shape)}" for name, tensor in wrong.items()]
        what = f"{len(wrong)} of {len(matched)} weights have another shape than the model's"
        kernels = [name for name in wrong if name.endswith(".kernel")]
        layouts = _layouts((wrong[name].shape, wanted[name].shape) for name in kernels)
        fix = "give `model` the planes, layers, stem and decoder that the weights were trained with"
        if layouts:
            what, fix = f"{what}; kernels lie in another layout: {layouts}", _LAYOUT_FIX
        raise file_error(f"{what}: {_some(pairs, separator='; ')}", path=path, fix=fix)
    kinds = [
        f"{name} {tensor.dtype}, here {wanted[name].dtype}"
        for name, tensor in matched.items()
        if tensor.is_floating_point() != wanted[name].is_floating_point()
    ]
    if kinds:
        what = f"{len(kinds)} weights are another kind of number than the model's: {_some(kinds, separator='; ')}"
        raise file_error(what, path=path, fix="re-save them as the model has them")


def require_complete(wanted: Mapping[str, Tensor], stored: Mapping[str, Tensor], *, path: Path, format: str) -> None:
    """Every entry of the parts that the format must have is there; of added parts, all or none."""
    parts = {*_REQUIRED[format], *(part for part in ADDED_PARTS if part in by_group(stored))}
    required = [name for name in wanted if group_of(name) in parts]
    absent = [name for name in required if name not in stored]
    if not absent:
        return
    counts = Counter(group_of(name) for name in absent)
    named = ", ".join(f"{part} ({count})" for part, count in counts.items())
    spare = {name: tuple(tensor.shape) for name, tensor in stored.items() if name not in wanted}
    instead = f"the file has instead {_some(_closest(absent, spare))}" if spare else "the file has nothing else"
    layouts = _layouts((shape, wanted[name].shape) for name in absent for shape in [_kernel_at(name, spare)] if shape)
    raise file_error(
        f"{len(absent)} of the {len(required)} weights that a {format} checkpoint must have are missing, of {named}: "
        f"{_some(absent)}; {instead}" + (f"; kernels lie in another layout: {layouts}" if layouts else ""),
        path=path,
        fix=_LAYOUT_FIX + ", under their names here"
        if layouts
        else "set the checkpoint's format to what the file is, or give `model` the size that it was trained with",
    )


def require_finite(tensors: Mapping[str, Tensor], *, path: Path) -> None:
    """No NaN and no infinity."""
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        what = f"{len(broken)} weights hold values that are not finite: {_some(broken)}"
        raise file_error(what, path=path, fix="take a checkpoint from before training broke, or get it again")


def _is_plain(tensor: Tensor) -> bool:
    dense = tensor.layout is torch.strided and not tensor.is_quantized
    return dense and tensor.device.type == "cpu" and not tensor.is_complex()


def _layouts(pairs: Iterable[tuple[Sequence[int], Sequence[int]]]) -> str:
    """How many kernels lie in which foreign layout; empty if none does."""
    found = Counter(foreign_layout(shape, wanted=wanted) for shape, wanted in pairs)
    return "; ".join(f"{count} in {layout}" for layout, count in found.items() if layout is not None)


def _kernel_at(name: str, spare: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """spconv calls a kernel ``weight``."""
    return spare.get(name.removesuffix("kernel") + "weight") if name.endswith(".kernel") else None


def _closest(absent: Sequence[str], spare: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The left-over entries, those first whose names are nearest to the first missing ones."""
    near = [name for one in absent[:_SHOWN] for name in difflib.get_close_matches(one, spare, n=1)]
    return [f"{name} {spare[name]}" for name in dict.fromkeys([*near, *spare])]


def _some(names: Sequence[str], *, separator: str = ", ") -> str:
    rest = len(names) - _SHOWN
    return separator.join(names[:_SHOWN]) + (f"{separator}and {rest} more" if rest > 0 else "")
