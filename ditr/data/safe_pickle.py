"""Reads pickles of other people: plain containers and arrays of numbers, nothing that runs or imports anything.

A pickle is a program that may name any function and have it called. Here the whole program is looked through before a
step of it runs, and what it may name are stand-ins written below, never the real thing.
"""

from __future__ import annotations

import codecs
import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ditr.errors import Code, DitrError

_ADMITTED = "only dicts, lists, tuples, sets, texts, bytes, numbers and arrays of numbers are read"
_FIX = "use a file from a source you trust, or make it anew"
_NUMBER = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|c8|c16)")
_MAX_DIMENSIONS = 32
_SHOWN = 20


def load_plain(raw: bytes, *, where: str) -> Any:
    """What the pickle ``raw`` holds; OrderedDicts come as dicts, numpy scalars as numbers.

    Arrays of any numeric or bool dtype are read, written by numpy 1 or 2 in protocols 0 to 5; they are of a subclass
    of ``np.ndarray``. ``DitrError`` names everything that the pickle asks for and is refused, or says how it is
    damaged.
    """
    try:
        refused = list(dict.fromkeys(_refusals(raw)))
        if not refused:
            return _PlainUnpickler(io.BytesIO(raw)).load()
    except _Refused as error:
        refused = [str(error)]
    except RecursionError as error:
        raise _damaged(where, "it is nested too deep") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(where, f"{type(error).__name__}: {error}") from error
    shown = ", ".join(refused[:_SHOWN]) + (f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else "")
    what = f"the pickle asks for {shown}; {_ADMITTED}, for a pickle can run code"
    raise DitrError(what, code=Code.DATASET, where=where, fix=_FIX)


class _Refused(Exception):
    """Says what was refused."""


def _damaged(where: str, why: str) -> DitrError:
    return DitrError(f"cannot be read as a pickle ({why})", code=Code.DATASET, where=where, fix=_FIX)


def _refusals(raw: bytes) -> Iterator[str]:
    """All that the pickle asks for and does not get, in order. Names are also followed through the pickle's memo."""
    texts = ["?", "?"]  # the last two that were pushed
    memo: dict[int, str] = {}
    memoized = 0
    pushed = ""  # by the last step, if that was a text
    for name, argument in _steps(raw):
        if name in _PUTS:
            index = memoized if name == "MEMOIZE" else _number(name, argument)
            if index > len(raw):
                yield f"memo entry {index}, which would fill the memory"
            memo[index] = pushed
            memoized += 1
            continue
        pushed = ""
        if name == "STACK_GLOBAL":
            yield from _unless_lent(texts[-2], texts[-1])
        elif name in _NAMED:
            module, attribute = argument.decode(errors="replace").split("\n")
            yield from _unless_lent(module, attribute)
        elif name in _REFUSED_STEPS:
            yield f"an object outside the file ({name})"
        elif name in _GETS:
            pushed = memo.get(_number(name, argument), "")
        elif len(argument) <= _MAX_NAME:
            pushed = argument.decode(errors="replace")
        if pushed:
            texts = [texts[-1], pushed]


def _steps(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and argument of the steps that matter for ``_refusals``, up to the pickle's end.

    The rest is passed over unread: a file of 10,000 frames has a million steps.
    """
    at = 0
    while True:
        name, size = _STEPS[raw[at]]
        start = at + 1
        if size >= 0:
            at = start + size
        elif size == pickletools.UP_TO_NEWLINE:
            at = raw.index(b"\n", raw.index(b"\n", start) + 1 if name in _NAMED else start) + 1
        else:
            start += _LENGTH_BYTES[size]
            at = start + int.from_bytes(raw[at + 1 : start], "little")
        if at > len(raw):
            raise EOFError("the file ends early")
        if name in _FOLLOWED:
            yield name, raw[start:at].removesuffix(b"\n") if size == pickletools.UP_TO_NEWLINE else raw[start:at]
        elif name == "STOP":
            return


def _number(name: str, argument: bytes) -> int:
    return int(argument) if name in ("PUT", "GET") else int.from_bytes(argument, "little")


def _unless_lent(module: str, name: str) -> Iterator[str]:
    if (module, name) not in _LENT:
        yield f"{module}.{name}"


_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_NAMED = frozenset({"GLOBAL", "INST"})
_TEXTS = frozenset({"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"})
_REFUSED_STEPS = frozenset({"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"})
_FOLLOWED = _PUTS | _GETS | _NAMED | _TEXTS | _REFUSED_STEPS | {"STACK_GLOBAL"}
_STEPS = {ord(step.code): (step.name, step.arg.n if step.arg else 0) for step in pickletools.opcodes}
"""Byte of a step -> its name and how long its argument is; below zero: where the length is found."""
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_MAX_NAME = 1000


class _PlainUnpickler(pickle.Unpickler):
    """The guard itself: whatever the look-through made of the names, only what is lent comes out here."""

    def find_class(self, module: str, name: str) -> object:
        """Called for every name; with pickle's own it would import it."""
        if (module, name) not in _LENT:
            raise _Refused(f"{module}.{name}")
        return _LENT[module, name]


class _Lent:
    """A function that a pickle may call. It has no dictionary and sets no attributes, so a pickle cannot change it."""

    __slots__ = ("_function",)
    _function: Callable[..., object]

    def __init__(self, function: Callable[..., object]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setattr__(self, name: str, value: object) -> None:
        raise _Refused(f"a change of {name!r} of what it is lent")


class _Dtype:
    """Stands for ``numpy.dtype``, whose state could declare numbers to be addresses of objects."""

    __slots__ = ("real",)

    def __init__(self, code: object, *_flags: object) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise _Refused(f"an array of dtype {code!r:.80}")
        self.real = np.dtype(code)

    def __setstate__(self, state: object) -> None:
        """Byte order, and that the dtype has no parts."""
        if not isinstance(state, tuple) or len(state) != 8 or state[1] not in ("<", ">", "|", "="):
            raise _Refused(f"a dtype of state {state!r:.80}")
        if state[2:] != (None, None, None, -1, -1, 0):
            raise _Refused(f"a dtype with parts or flags: {state!r:.80}")
        self.real = self.real.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose state was checked; numpy's own takes it at its word."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """(version, shape, dtype, whether Fortran order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("an array of unknown state")
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | bytearray):
            raise _Refused("an array of other things than numbers")
        _check_shape(shape, size=dtype.real.itemsize, available=len(content))
        checked: Any = (1, shape, dtype.real, bool(fortran), bytes(content))
        super().__setstate__(checked)


def _check_shape(shape: object, *, size: int, available: int) -> None:
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS:
        raise _Refused(f"an array of shape {shape!r:.80}")
    if not all(type(length) is int and length >= 0 for length in shape) or math.prod(shape) * size != available:
        raise _Refused(f"an array of shape {shape!r:.80} from {available} bytes")


def _empty_array(_kind: object, _shape: object, _code: object) -> object:
    return np.ndarray.__new__(_Array, (0,), np.uint8)


def _array_of_buffer(buffer: object, dtype: object, shape: object, order: object, axes: object = None) -> object:
    if not isinstance(dtype, _Dtype) or not isinstance(buffer, bytes | bytearray):
        raise _Refused("an array of other things than numbers")
    _check_shape(shape, size=dtype.real.itemsize, available=len(buffer))
    flat: Any = np.frombuffer(bytes(buffer), dtype=dtype.real).view(_Array)
    if order == "K":
        return flat.reshape(shape).transpose(axes).copy()
    return flat.reshape(shape, order=order).copy()


def _scalar(dtype: object, content: object = b"") -> object:
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes) or len(content) != dtype.real.itemsize:
        raise _Refused("a numpy scalar that is no number")
    return np.frombuffer(content, dtype=dtype.real)[0].item()


def _latin1(text: object, encoding: object) -> object:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"bytes encoded as {encoding!r:.80}")
    return codecs.encode(text, "latin1")


def _no_bytes() -> object:
    return b""


def _complex(real: float, imaginary: float) -> object:
    return complex(real, imaginary)


_LENT: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Lent(_Dtype),
    ("_codecs", "encode"): _Lent(_latin1),
    ("collections", "OrderedDict"): _Lent(dict),
}
for _core in ("numpy.core", "numpy._core"):
    _LENT[f"{_core}.multiarray", "_reconstruct"] = _Lent(_empty_array)
    _LENT[f"{_core}.multiarray", "scalar"] = _Lent(_scalar)
    _LENT[f"{_core}.numeric", "_frombuffer"] = _Lent(_array_of_buffer)
for _builtins in ("builtins", "__builtin__"):
    _LENT[_builtins, "set"] = _Lent(set)
    _LENT[_builtins, "frozenset"] = _Lent(frozenset)
    _LENT[_builtins, "bytes"] = _Lent(_no_bytes)
    _LENT[_builtins, "complex"] = _Lent(_complex)
