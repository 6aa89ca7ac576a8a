"""One way to derive a seed from what it is for, so that no result depends on call order or worker count."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from its parts, e.g. ``derive_seed(seed, "augment", epoch, frame_id)``; stable across machines."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
