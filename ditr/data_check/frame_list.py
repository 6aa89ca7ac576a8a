"""Frame lists: which frames a split is meant to have (docs/reference/esam.md, Frame lists)."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from ditr.data.scannet_sv import Split
from ditr.errors import Code, DitrError
from ditr.files import read_text

FRAME_LISTS: dict[Split, str] = {"train": "meta_data/scannetv2_sv_train.txt", "val": "meta_data/scannetv2_sv_val.txt"}
"""Split -> its list below a prepared folder."""
_FRAME_OF_A_SCAN = re.compile(r"scene\d{4}_\d{2}_\d+")
_SHOWN = 10


def read_frame_list(path: Path) -> tuple[str, ...]:
    """The ids of a list, one a line, in its order.

    ``DitrError`` for a missing file, an empty list, and for all lines that are no id or come again.
    """
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except FileNotFoundError as error:
        fix = "copy it from ESAM's data/scannet200-sv/meta_data"
        raise DitrError("no such frame list", code=Code.DATASET, where=str(path), fix=fix) from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line]
    wrong = [
        f"line {number}: {line!r} is no frame id" for number, line in numbered if not _FRAME_OF_A_SCAN.fullmatch(line)
    ]
    counts = Counter(line for _, line in numbered)
    wrong += [f"{line} is listed {count} times" for line, count in counts.items() if count > 1]
    if wrong or not numbered:
        shown = "".join(f"\n  {text}" for text in wrong[:_SHOWN])
        what = f"{len(wrong)} mistakes in the frame list:{shown}" if wrong else "the frame list is empty"
        fix = "write one <scene>_<frame> a line, such as scene0000_00_200"
        raise DitrError(what, code=Code.DATASET, where=str(path), fix=fix)
    return tuple(line for _, line in numbered)
