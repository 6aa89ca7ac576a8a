"""What must hold of a weight file before any of it enters a model; each check names what it found and what helps."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ditr.spec.models import BackboneSpec
from ditr.weights.backbone import COUNTER, Shapes, backbone_in, backbone_shapes
from ditr.weights.file import WeightFile, file_error
from ditr.weights.names import PLAIN_PARTS, added_parts, by_group, first_word, prefix_in

_SHOWN = 4
_REQUIRED = {"mask3d": ("backbone",), "esam": PLAIN_PARTS, "ditr": PLAIN_PARTS}


def require_tensors(file: WeightFile) -> None:
    """The file has weights, and they are plain tensors."""
    if file.no_tensors:
        what = f"{len(file.no_tensors)} entries of `state_dict` are not tensors: {some(file.no_tensors)}"
        raise file_error(what, path=file.path, fix="re-save the state dict with tensors only")
    if not file.tensors:
        held = f"; its top level holds {some(list(file.contents))}" if file.contents else ""
        what = f"the file holds no weights{held}"
        raise file_error(what, path=file.path, fix="name a file with a state dict, at the top or as `state_dict`")
    odd = [name for name, tensor in file.tensors.items() if not _is_plain(tensor)]
    if odd:
        what = f"{len(odd)} entries are sparse, quantised, complex or without values: {some(odd)}"
        raise file_error(what, path=file.path, fix="re-save them as dense numbers")


def require_under_prefix(file: WeightFile, *, prefix: str) -> None:
    """The backbone's names start with the prefix."""
    names = tuple(file.tensors)
    if any(name.startswith(f"{prefix}backbone.") for name in names):
        return
    found = prefix_in(names)
    what = f"no entry of the file starts with '{prefix}backbone.'"
    if found is None:
        what += f", and none is of a backbone; it has {some(names)}"
        raise file_error(what, path=file.path, fix="name a file with the weights of this model")
    what += f"; the backbone's names there start with '{found}backbone.'"
    field = f'set checkpoint.key_prefix: "{found}"' if found else "leave checkpoint.key_prefix out"
    raise file_error(what, path=file.path, fix=f"{field} (for a registry checkpoint: key_prefix of its entry)")


def require_fit(stored: Shapes, wanted: Shapes, *, path: Path, format: str) -> None:
    """Every entry that the format must have is there, and what is there has the model's shape.

    Parameters
    ----------
    stored: the file's entries, by the model's names.
    wanted: the model's.
    """
    groups = by_group(stored)
    more = groups.keys() & {"pool", "decoder"}
    if format == "mask3d" and more:  # they would be set unannounced
        what = f"the file holds {' and '.join(sorted(more, reverse=True))} too, which mask3d weights do not have"
        raise file_error(what, path=path, fix="set checkpoint.format to esam, or to ditr for weights that ditr saved")
    wrong = [name for name in stored if name in wanted and stored[name] != wanted[name]]
    if wrong:
        pairs = [f"{name} {stored[name]}, here {wanted[name]}" for name in wrong]
        what = f"{len(wrong)} of the file's weights have another shape than the model's: {some(pairs, separator='; ')}"
        raise file_error(what, path=path, fix=_what_helps(wrong, stored, wanted))
    there = {first_word(name) for name in stored}
    parts = {*_REQUIRED[format], *(part for part in added_parts(wanted) if part in there)}
    required = [name for name in wanted if first_word(name) in parts]
    absent = [name for name in required if name not in stored]
    if absent:
        counts = Counter(first_word(name) for name in absent)
        named = ", ".join(f"{part} ({count})" for part, count in counts.items())
        spare = {name: shape for name, shape in stored.items() if name not in wanted}
        instead = f"the file has instead {some(_closest(absent, spare))}" if spare else "the file has nothing else"
        raise file_error(
            f"{len(absent)} of the {len(required)} weights that a {format} checkpoint must have are missing, of "
            f"{named}: {some(absent)}; {instead}",
            path=path,
            fix=_what_helps(absent, stored, wanted),
        )


def require_same_kinds(tensors: Mapping[str, Tensor], *, path: Path) -> None:
    """Whole numbers only where norms count their batches."""
    kinds = [
        f"{name} {tensor.dtype}" for name, tensor in tensors.items() if tensor.is_floating_point() == _counts(name)
    ]
    if kinds:
        what = f"{len(kinds)} weights are another kind of number than the model's: {some(kinds, separator='; ')}"
        raise file_error(what, path=path, fix="re-save them as the model has them")


def require_finite(tensors: Mapping[str, Tensor], *, path: Path) -> None:
    """No NaN and no infinity."""
    if broken := not_finite(tensors):
        what = f"{len(broken)} weights hold values that are not finite: {some(broken)}"
        raise file_error(what, path=path, fix="take a checkpoint from before training broke, or get it again")


def not_finite(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the entries with NaN or infinite values."""
    return tuple(
        name for name, tensor in tensors.items() if _is_plain(tensor) and not bool(torch.isfinite(tensor).all())
    )


def some(names: Sequence[str], *, separator: str = ", ") -> str:
    """The first of the names, and how many more there are."""
    rest = len(names) - _SHOWN
    return separator.join(names[:_SHOWN]) + (f"{separator}and {rest} more" if rest > 0 else "")


def _what_helps(faulty: Collection[str], stored: Shapes, wanted: Shapes) -> str:
    """Against entries that lack or have another shape: what a user can change, if anything but the file."""
    parts = {first_word(name) for name in faulty}
    here, there = backbone_in(wanted), backbone_in(stored)
    if "backbone" not in parts:
        if not parts & {first_word(name) for name in stored}:
            return "set the checkpoint's format to mask3d, if it is the backbone's weights alone that you want"
        if parts - {*PLAIN_PARTS}:
            return "give the spec the `fusion` and `features` that the weights were trained with"
        return "give `model.decoder` the sizes that the weights were trained with"
    if there and there != here and _is_whole(stored, there):
        return (
            f"give `model.backbone` the sizes of these weights: planes {list(there.planes)}, layers "
            f"{list(there.layers)}, stem_channels {there.stem_channels}"
        )
    if all(name in stored and prod(stored[name]) == prod(wanted[name]) for name in faulty):
        return (
            "convert the kernels to MinkowskiEngine's layout: (kernel volume, in, out) with the first spatial axis "
            "fastest, and (in, out) where the volume is 1"
        )
    return (
        "take other weights, no field of a spec makes these fit: they are not those of a Res16UNet with 3 channels in "
        "and a 5x5x5 stem, under its names"
    )


def _is_whole(stored: Shapes, backbone: BackboneSpec) -> bool:
    return all(stored.get(name) == shape for name, shape in backbone_shapes(backbone).items())


def _is_plain(tensor: Tensor) -> bool:
    dense = tensor.layout is torch.strided and not tensor.is_quantized
    return dense and tensor.device.type == "cpu" and not tensor.is_complex()


def _counts(name: str) -> bool:
    return name.endswith(COUNTER)


def _closest(absent: Sequence[str], spare: Shapes) -> list[str]:
    """The left-over entries, those first whose names are nearest to the first missing ones."""
    near = [name for one in absent[:_SHOWN] for name in difflib.get_close_matches(one, spare, n=1)]
    return [f"{name} {spare[name]}" for name in dict.fromkeys([*near, *spare])]
