"""Weights in and out. What must match, matches whole or is an error; what else the file holds is reported."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ditr.errors import Code, DitrError

ADDED_PARTS = ("injection.", "bifusion.")
"""Parts that the 3D-only model does not have: a file holds each of them whole or not at all."""
REQUIRED_PARTS = {
    "mask3d": ("backbone.",),
    "esam": ("backbone.", "pool.", "decoder."),
    "ditr": ("backbone.", "pool.", "decoder."),
}
_PICKLED = (".pth", ".pt", ".ckpt")
_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What a file gave the model."""

    matched: int
    """Entries of the model that the file set."""
    missing: tuple[str, ...]
    """Entries of the model that keep their fresh initialisation."""
    unexpected: tuple[str, ...]
    """Entries of the file that the model has no place for."""


def load_weights(model: nn.Module, path: Path, *, format: str) -> LoadReport:
    """Set the model's weights from ``path``; the model is unchanged if this raises ``DitrError``.

    ``mask3d``: every entry of the backbone must be there, as ``backbone.*`` or ``model.backbone.*``. ``esam`` and
    ``ditr``: every entry of the 3D-only model must be there. Files ending in .pth, .pt or .ckpt are read as torch's
    (tensors only, optionally under ``state_dict``), others as safetensors (reference: ESAM section 3.3).
    """
    if format not in REQUIRED_PARTS:
        raise ValueError(f"format is one of {', '.join(REQUIRED_PARTS)}, not {format!r}")
    stored = _without_prefix(_read(path))
    wanted = dict(model.state_dict())
    matched = {name: tensor for name, tensor in stored.items() if name in wanted}
    _check_shapes(matched, wanted, path=path)
    _check_complete(wanted, stored, path=path, format=format)
    _check_finite(matched, path=path)
    model.load_state_dict(matched, strict=False)
    return LoadReport(
        matched=len(matched),
        missing=tuple(name for name in wanted if name not in matched),
        unexpected=tuple(name for name in stored if name not in wanted),
    )


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's state dict as safetensors, whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(state, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise _error("there is no such file", path=path, fix="check the path, or take a checkpoint of the registry")
    try:
        content = _read_pickled(path) if path.suffix in _PICKLED else load_file(path)
    except pickle.UnpicklingError as error:
        raise _error(
            f"the file is damaged or holds objects besides tensors: {_first_line(error)}",
            path=path,
            fix="get it again; or, where it was made, re-save it with torch.save({'state_dict': ...}, path)",
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _error(
            f"the file is damaged or cut short: {_first_line(error)}", path=path, fix="get it again"
        ) from error
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise _error("the file holds no weights", path=path, fix="name a file with a state dict")
    return tensors


def _read_pickled(path: Path) -> Mapping[str, Any]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    return content if isinstance(content, Mapping) else {}


def _without_prefix(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Lightning puts the network under ``model.``."""
    if any(name.startswith("backbone.") for name in stored):
        return dict(stored)
    return {name.removeprefix("model."): tensor for name, tensor in stored.items()}


def _check_shapes(matched: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, path: Path) -> None:
    wrong = [name for name, tensor in matched.items() if tensor.shape != wanted[name].shape]
    if not wrong:
        return
    pairs = [f"{name} {tuple(matched[name].shape)}, here {tuple(wanted[name].shape)}" for name in wrong]
    permuted = [name for name in wrong if name.endswith(".kernel") and matched[name].numel() == wanted[name].numel()]
    raise _error(
        f"{len(wrong)} of {len(matched)} weights have another shape than the model's: {_some(pairs, separator='; ')}",
        path=path,
        fix="this is another kernel layout (spconv's?): the kernels must be (kernel volume, in, out)"
        if permuted
        else "give `model` the planes, layers, stem and decoder that the checkpoint was trained with",
    )


def _check_complete(wanted: Mapping[str, Tensor], stored: Mapping[str, Tensor], *, path: Path, format: str) -> None:
    required = [name for name in wanted if name.startswith(REQUIRED_PARTS[format])]
    for part in ADDED_PARTS:
        if any(name.startswith(part) for name in stored):
            required += [name for name in wanted if name.startswith(part)]
    absent = [name for name in required if name not in stored]
    if absent:
        raise _error(
            f"{len(absent)} of the {len(required)} weights that a {format} checkpoint must have are missing: "
            f"{_some(absent)}; the file has {len(stored)} entries: {_some(list(stored))}",
            path=path,
            fix="name the checkpoint's right format, or give `model` the size that it was trained with",
        )


def _check_finite(matched: Mapping[str, Tensor], *, path: Path) -> None:
    broken = [name for name, tensor in matched.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise _error(
            f"{len(broken)} weights hold values that are not finite: {_some(broken)}", path=path, fix="get it again"
        )


def _some(names: Sequence[str], *, separator: str = ", ") -> str:
    rest = len(names) - _SHOWN
    return separator.join(names[:_SHOWN]) + (f"{separator}and {rest} more" if rest > 0 else "")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _error(what: str, *, path: Path, fix: str) -> DitrError:
    return DitrError(what, code=Code.CHECKPOINT, where=str(path), fix=fix)
