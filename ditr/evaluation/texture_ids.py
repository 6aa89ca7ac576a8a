"""Which instances differ from what they touch in fine texture alone, where a data set says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ditr.data.scannet_sv import MANIFEST


def texture_ids(root: Path) -> Mapping[str, frozenset[int]] | None:
    """By frame id, the instance ids on disk of things of texture-only groups of which the frame shows at least two.

    None for a data set that does not say: only the embedded ones do, in their manifest.
    """
    file = root / MANIFEST
    manifest = json.loads(file.read_text()) if file.is_file() else {}
    if manifest.get("generator") != "synthrooms":
        return None
    return {frame_id: frozenset(facts["texture_ids"]) for frame_id, facts in manifest["frames"].items()}
