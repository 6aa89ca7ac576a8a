"""synthrooms: procedural rooms in the layout of ScanNet200-SV, with instances that only fine texture tells apart."""

from __future__ import annotations

from ditr.rooms.dataset import content_digest, make, make_missing, make_once

__all__ = ["content_digest", "make", "make_missing", "make_once"]
