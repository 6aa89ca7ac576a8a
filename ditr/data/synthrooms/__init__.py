"""synthrooms: procedural rooms in the layout of ScanNet200-SV, with instances that only fine texture tells apart."""

from __future__ import annotations

from ditr.data.synthrooms.make import MANIFEST, content_digest, make

__all__ = ["MANIFEST", "content_digest", "make"]
