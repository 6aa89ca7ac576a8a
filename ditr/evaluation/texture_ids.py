"""Which instances differ from what they touch in fine texture alone, where a data set says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ditr.data.manifest import read_manifest


def texture_ids(root: Path) -> Mapping[str, frozenset[int]] | None:
    """By frame id, the instance ids on disk of things of texture-only groups of which the frame shows at least two.

    None for a data set that does not say: only the embedded ones do, in their manifest.
    """
    manifest = read_manifest(root)
    if manifest is None:
        return None
    return {frame_id: frozenset(frame.texture_ids) for frame_id, frame in manifest.frames.items()}
