"""Reading a weight file without running any of it: what it holds, as tensors and plain values.

Training frameworks put objects beside the weights. torch's weights-only unpickler makes nothing that it was not told
of; names of known bookkeeping are mapped to a class that takes anything and does nothing, any other name is refused.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from ditr.errors import Code, DitrError
from ditr.weights.archive import require_checksums
from ditr.weights.saving import DIGEST, digest_of
from ditr.weights.tuples import require_small_tuples, require_small_tuples_before_zip

Container = Literal["torch", "torch before 1.6", "safetensors"]

BOOKKEEPING = (
    *("mmengine", "mmcv", "mmdet", "mmdet3d", "oneformer3d", "addict"),
    *("pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities", "omegaconf", "argparse.Namespace"),
    *("numpy", "collections", "datetime", "pathlib", "typing", "torch.optim", "torch.torch_version"),
    # A method in a HistoryBuffer's state is stored as getattr(class, name): named, and never called.
    *(f"builtins.{name}" for name in ("getattr", "bool", "dict", "float", "int", "list", "object", "str", "tuple")),
)
"""Packages and names whose objects training frameworks store beside weights; none of them is imported or called."""

_ZIP = b"PK\x03\x04"
_BEFORE_ZIP = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
_RESAVE = "re-save it where it was made: torch.save({'state_dict': model.state_dict()}, path)"
_AGAIN = "get it again"


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """What a file holds; nothing is checked against a model."""

    path: Path
    container: Container
    nested: bool
    """Whether the weights lie under ``state_dict``, as training frameworks store them."""
    tensors: Mapping[str, Tensor]
    """The weights by their names in the file; those of a large file are read from the disk when they are used."""
    no_tensors: tuple[str, ...]
    """Names under ``state_dict`` whose values are not tensors."""
    contents: Mapping[str, object]
    """What else the top level holds."""
    checked: str | None
    """What shows that no byte has changed; None where nothing in the file does."""


class Inert:
    """Where a file asks for bookkeeping of a training framework: takes anything, keeps nothing, does nothing."""

    __slots__ = ()

    def __new__(cls, *_arguments: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_arguments: object) -> None:
        """Takes the arguments of whatever it stands for."""

    def __setstate__(self, _state: object) -> None:
        """Takes the state of whatever it stands for."""


def read_weight_file(path: Path) -> WeightFile:
    """Reads a torch file (any name) or a safetensors file.

    Raises
    ------
    DitrError: the file is missing, damaged or cut short, of another kind, or names code that is no known bookkeeping.
    """
    if not path.is_file():
        raise file_error("there is no such file", path=path, fix="check the path, or take a checkpoint of the registry")
    try:
        return _reader(path)(path)
    except DitrError:
        raise
    except pickle.UnpicklingError as error:
        what = f"the file's bookkeeping cannot be read without running code: {reason_of(error)}"
        raise file_error(what, path=path, fix=f"{_AGAIN}; or {_RESAVE}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise file_error(f"the file is damaged or cut short: {reason_of(error)}", path=path, fix=_AGAIN) from error


def file_error(what: str, *, path: Path, fix: str) -> DitrError:
    """A ``DitrError`` about a weight file."""
    return DitrError(what, code=Code.CHECKPOINT, where=str(path), fix=fix)


def _reader(path: Path) -> Callable[[Path], WeightFile]:
    """By the first bytes, since .pth, .pt, .ckpt and .bin are all used for more than one thing."""
    with path.open("rb") as file:
        head = file.read(512)
    if path.suffix == ".safetensors" and head.startswith((_ZIP, _BEFORE_ZIP)):  # torch goes by the name
        raise file_error("the file is torch's and has the name of a safetensors file", path=path, fix="name it .pth")
    if head.startswith(_ZIP):
        return _read_torch
    if head.startswith(_BEFORE_ZIP):
        return _read_torch_before_zip
    if head[8:9] == b"{":
        return _read_safetensors
    if head[257:262] == b"ustar" or head.startswith(b"\x80"):
        kind = "a bare pickle" if head.startswith(b"\x80") else "in torch's tar format of before 2018"
        raise file_error(f"the file is {kind}, which can run code and is not read", path=path, fix=_RESAVE)
    raise file_error("the file is damaged: it is neither torch's nor safetensors", path=path, fix=_AGAIN)


def _read_torch(path: Path) -> WeightFile:
    require_checksums(path)
    require_small_tuples(path)
    try:
        names = sorted(get_unsafe_globals_in_checkpoint(path))
    except ValueError as error:
        raise file_error(f"the file is not weights alone: {error}", path=path, fix=_RESAVE) from error
    code = [name for name in names if not _is_bookkeeping(name)]
    if code:
        what = f"the file names code that is no known bookkeeping, and none of it was run: {', '.join(code)}"
        raise file_error(what, path=path, fix=f"get it from a source that you trust; or {_RESAVE}")
    stand_ins: list[Any] = [(_plain_dict if name == "collections.defaultdict" else Inert, name) for name in names]
    # What is not used, such as an optimizer's state, stays on the disk.
    with safe_globals(stand_ins), _protocol_warning_off():
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return _sorted_out(content, path=path, container="torch", checked="the checksums of its archive")


def _read_torch_before_zip(path: Path) -> WeightFile:
    require_small_tuples_before_zip(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    return _sorted_out(content, path=path, container="torch before 1.6", checked=None)


def _read_safetensors(path: Path) -> WeightFile:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        metadata = file.metadata() or {}
    digest = metadata.get(DIGEST)
    if digest is not None and digest != digest_of(tensors):
        fix = "restore it from a copy, or run the spec again with --force"
        raise file_error("the file is damaged: it does not match the digest in it", path=path, fix=fix)
    return WeightFile(
        path=path,
        container="safetensors",
        nested=False,
        tensors=tensors,
        no_tensors=(),
        contents=metadata,
        checked=digest and "the digest that ditr wrote into it",
    )


def _sorted_out(content: object, *, path: Path, container: Container, checked: str | None) -> WeightFile:
    if not isinstance(content, Mapping):
        what = f"the file holds a {type(content).__name__}, not a dictionary of weights"
        raise file_error(what, path=path, fix="name a file with a state dict")
    entries = {str(name): value for name, value in content.items()}
    nested = isinstance(entries.get("state_dict"), Mapping)
    weights = {str(name): value for name, value in entries.pop("state_dict").items()} if nested else entries
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    rest = {name: value for name, value in weights.items() if name not in tensors}
    return WeightFile(
        path=path,
        container=container,
        nested=nested,
        tensors=tensors,
        no_tensors=tuple(rest) if nested else (),
        contents=entries if nested else rest,
        checked=checked,
    )


def _is_bookkeeping(name: str) -> bool:
    return any(name == known or name.startswith(known + ".") for known in BOOKKEEPING)


def _plain_dict(*_arguments: object) -> dict[object, object]:
    """Stands for defaultdict: the unpickler fills dictionaries only."""
    return {}


def _protocol_warning_off() -> warnings.catch_warnings[None]:
    """torch warns of other pickle protocols before it refuses what it does not know of them."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def reason_of(error: Exception) -> str:
    """The line of the error's text that says what it is about; torch wraps it in advice on how to run the code."""
    text = str(error)
    if "Unsupported operand" in text:
        return "it is pickled in another protocol than torch's"
    if named := re.search(r"GLOBAL (\S+)", text):
        return f"it names {named[1]}"
    if isinstance(error, pickle.UnpicklingError):
        text = text.rpartition("WeightsUnpickler error:")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
