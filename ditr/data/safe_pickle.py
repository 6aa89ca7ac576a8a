"""Reads pickles of other people: plain containers and arrays of numbers, nothing that runs or imports anything.

A pickle is a program that may name any function and have it called. What it may name here are stand-ins written below,
never the real thing; at the first other name the reading ends.
"""

from __future__ import annotations

import codecs
import io
import math
import pickle
import re
import reprlib
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from ditr.data.pickle_bounds import ExcessError, require_bounded, require_plain_keys
from ditr.errors import Code, DitrError

_ADMITTED = "only dicts, lists, tuples, sets, texts, bytes, numbers and arrays of numbers are read"
_FIX = "use a file from a source you trust, or make it anew"
_NUMBER = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|c8|c16)")
_MAX_DIMENSIONS = 32


def load_plain(raw: bytes, *, where: str) -> Any:
    """What the pickle ``raw`` holds; OrderedDicts come as dicts, numpy scalars as numbers.

    Arrays of any numeric or bool dtype are read, written by numpy 1 or 2 in protocols 0 to 5; they are of a subclass
    of ``np.ndarray``.

    Raises
    ------
    DitrError: it says what the pickle asks for first that is refused, and where in the file, or how it is damaged, or
        that it stands for far more than its bytes.
    """
    stream = io.BytesIO(raw)
    try:
        content = _PlainUnpickler(stream).load()
        require_bounded(content, raw_bytes=len(raw))
        return content
    except ExcessError as error:
        raise _damaged(where, str(error)) from error
    except _Refused as error:
        what = f"the pickle asks for {error} before byte {stream.tell()}; {_ADMITTED}, for a pickle can run code"
        raise DitrError(what, code=Code.DATASET, where=where, fix=_FIX) from error
    except RecursionError as error:
        raise _damaged(where, "it is nested too deep") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(where, f"{type(error).__name__}: {error}") from error


class _Refused(Exception):
    """Says what was refused."""


def _damaged(where: str, why: str) -> DitrError:
    return DitrError(f"cannot be read as a pickle ({why})", code=Code.DATASET, where=where, fix=_FIX)


def _pass_frame(unpickler: Any) -> None:
    """A frame is read as what it holds, so that the place in the file is known."""
    unpickler.read(8)


def _read_bytearray(unpickler: Any) -> None:
    """pickle's own makes room for as many bytes as the file claims to hold."""
    (length,) = struct.unpack("<Q", unpickler.read(8))
    unpickler.append(bytearray(unpickler.read(length)))


def _set_item(unpickler: Any) -> None:
    _require_dict(unpickler.stack[-3])
    require_plain_keys(unpickler.stack[-2:-1])
    unpickler.load_setitem()


def _set_items(unpickler: Any) -> None:
    _require_dict(unpickler.metastack[-1][-1])
    require_plain_keys(unpickler.stack[::2])
    unpickler.load_setitems()


def _make_dict(unpickler: Any) -> None:
    require_plain_keys(unpickler.stack[::2])
    unpickler.load_dict()


def _add_items(unpickler: Any) -> None:
    require_plain_keys(unpickler.stack)
    unpickler.load_additems()


def _make_frozenset(unpickler: Any) -> None:
    require_plain_keys(unpickler.stack)
    unpickler.load_frozenset()


def _require_dict(holder: object) -> None:
    if type(holder) is not dict:
        raise _Refused(f"an item of a {type(holder).__name__} to be set")


class _PlainUnpickler(pickle._Unpickler):
    """Python's own reader as it is written in Python: the one in C lets a few damaged bytes fill the memory."""

    def find_class(self, module: str, name: str) -> object:
        """Called for every name; with pickle's own it would import it."""
        if (module, name) not in _LENT:
            raise _Refused(f"{module}.{name}")
        return _LENT[module, name]

    def persistent_load(self, pid: object) -> object:
        raise _Refused("an object outside the file")

    def get_extension(self, code: int) -> object:
        raise _Refused("an object outside the file")

    dispatch = pickle._Unpickler.dispatch | {
        pickle.FRAME[0]: _pass_frame,
        pickle.BYTEARRAY8[0]: _read_bytearray,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _make_dict,
        pickle.ADDITEMS[0]: _add_items,
        pickle.FROZENSET[0]: _make_frozenset,
    }


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
            raise _Refused(f"an array of dtype {reprlib.repr(code)}")
        self.real = np.dtype(code)

    def __setstate__(self, state: object) -> None:
        """Byte order, and that the dtype has no parts."""
        if not isinstance(state, tuple) or len(state) != 8 or state[1] not in ("<", ">", "|", "="):
            raise _Refused(f"a dtype of state {reprlib.repr(state)}")
        if state[2:] != (None, None, None, -1, -1, 0):
            raise _Refused(f"a dtype with parts or flags: {reprlib.repr(state)}")
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
        raise _Refused(f"an array of shape {reprlib.repr(shape)}")
    if not all(type(length) is int and length >= 0 for length in shape) or math.prod(shape) * size != available:
        raise _Refused(f"an array of shape {reprlib.repr(shape)} from {available} bytes")


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
        raise _Refused(f"bytes encoded as {reprlib.repr(encoding)}")
    return codecs.encode(text, "latin1")


def _set(items: object = ()) -> object:
    return set(_plain_keys(items))


def _frozenset(items: object = ()) -> object:
    return frozenset(_plain_keys(items))


def _dict(pairs: object = ()) -> object:
    if not isinstance(pairs, list | tuple) or not all(isinstance(pair, list | tuple) and pair for pair in pairs):
        raise _Refused(f"a dict of a {type(pairs).__name__}")
    require_plain_keys(pair[0] for pair in pairs)
    return dict(pairs)


def _plain_keys(items: object) -> list[object] | tuple[object, ...]:
    if not isinstance(items, list | tuple):
        raise _Refused(f"a set of a {type(items).__name__}")
    require_plain_keys(items)
    return items


def _no_bytes() -> object:
    return b""


def _complex(real: float, imaginary: float) -> object:
    return complex(real, imaginary)


_LENT: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Lent(_Dtype),
    ("_codecs", "encode"): _Lent(_latin1),
    ("collections", "OrderedDict"): _Lent(_dict),
}
for _core in ("numpy.core", "numpy._core"):
    _LENT[f"{_core}.multiarray", "_reconstruct"] = _Lent(_empty_array)
    _LENT[f"{_core}.multiarray", "scalar"] = _Lent(_scalar)
    _LENT[f"{_core}.numeric", "_frombuffer"] = _Lent(_array_of_buffer)
for _builtins in ("builtins", "__builtin__"):
    _LENT[_builtins, "set"] = _Lent(_set)
    _LENT[_builtins, "frozenset"] = _Lent(_frozenset)
    _LENT[_builtins, "bytes"] = _Lent(_no_bytes)
    _LENT[_builtins, "complex"] = _Lent(_complex)
