"""Damaged forms of a file: bits, bytes and blocks as disks damage them, words as people and programs do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import numpy as np

_WORD = re.compile(rb"[\w.+-]+")
_ODD = (
    b"-1",
    b"0",
    b"1e30",
    b"-1e400",
    b"nan",
    b"NaN",
    b"Infinity",
    b"9" * 30,
    b"9" * 5000,
    b"null",
    b"true",
    b'""',
    b"'",
    b"[]",
    b"{}",
    b"[" * 3000,
    b"{a: " * 60,
    b"!!int x",
    b"&a [*a]",
    b'"\\ud800"',
    b"\xff\xfe",
    b"\x00",
    b"x" * 300,
    b"../../..",
    b"/",
    "Ünï\u2028".encode(),
)
"""What a word may be replaced by."""


def mutations(raw: bytes, *, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many damaged forms of the bytes, each with what was done; none is as before."""
    rng = np.random.default_rng(seed)
    is_text = b"\x00" not in raw[:4096] and bool(raw.isascii())
    turns = itertools.count()
    for _ in range(count):
        changed = raw
        while changed == raw:
            turn = next(turns)
            what, changed = _replaced(raw, rng) if is_text and turn % 2 else _flipped(raw, rng, turn=turn)
        yield what, changed


def _replaced(raw: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """A word of a text is another, or a line is away, there twice, or somewhere else."""
    kind = int(rng.integers(8))
    lines = raw.splitlines(keepends=True)
    if kind < 6 and (words := list(_WORD.finditer(raw))):
        word, odd = words[int(rng.integers(len(words)))], _ODD[int(rng.integers(len(_ODD)))]
        return f"{word[0]!r} at {word.start()} became {odd[:20]!r}", raw[: word.start()] + odd + raw[word.end() :]
    if not lines:
        return "nothing", raw
    at, to = (int(place) for place in rng.integers(len(lines), size=2))
    if kind == 6:
        return f"line {at} left out", b"".join(lines[:at] + lines[at + 1 :])
    return f"line {at} put before line {to} too", b"".join([*lines[:to], lines[at], *lines[to:]])


def _flipped(raw: bytes, rng: np.random.Generator, *, turn: int) -> tuple[str, bytes]:
    if not raw:
        return "a byte added", b"\x00"
    at, other = (int(place) for place in rng.integers(len(raw), size=2))
    block = int(2 ** rng.integers(2, 10))
    changed = bytearray(raw)
    kind = (turn // 2) % 8
    if kind < 4:
        bit = int(rng.integers(8))
        changed[at] ^= 1 << bit
        return f"bit {bit} of byte {at} flipped", bytes(changed)
    if kind == 4:
        changed[at] = int(rng.integers(256))
        return f"byte {at} replaced", bytes(changed)
    if kind == 5:
        changed[at : at + block] = bytes(len(changed[at : at + block]))
        return f"{block} bytes from {at} zeroed", bytes(changed)
    if kind == 6:
        return f"cut to {at} bytes", bytes(changed[:at])
    changed[at : at + block] = raw[other : other + block]
    return f"{block} bytes from {other} put at {at}", bytes(changed)
