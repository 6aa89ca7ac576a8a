"""``make stores``: every fault in every phase, and what came of it; 1 if anything was lost."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.stores.phases import PHASES, Phase, Stores
from tests.stores.sandbox import warm_up
from tests.stores.trials import (
    Whole,
    do_in,
    on_a_full_disk,
    on_a_read_only_disk,
    on_anothers_folder,
    undisturbed,
    with_its_folder_removed,
)


def main() -> int:
    """Prints a row a phase and fault as it is done, then everything that was not to come."""
    parser = argparse.ArgumentParser(prog="python -m tests.stores", description=__doc__)
    parser.add_argument("--sizes", type=int, default=8, help="sizes of the full disk")
    parser.add_argument("--removals", type=int, default=4, help="moments at which the folder is removed")
    parser.add_argument("phases", nargs="*", help=f"of {', '.join(PHASES)}; all without")
    asked = parser.parse_args()
    found: list[str] = []
    warm_up()
    print("| phase | fault | tried | came of it | s |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="ditr-stores-") as folder:
        given = prepare(Path(folder) / "given")
        for name in asked.phases or PHASES:
            phase = PHASES[name]
            whole = undisturbed(phase, given, Path(folder) / f"whole-{name}")
            for fault, trials in _faults(phase, given, whole, sizes=asked.sizes, removals=asked.removals).items():
                began, counts = time.monotonic(), Counter[str]()
                for number, trial in enumerate(trials):
                    try:
                        counts[trial(Path(folder) / f"{name}-{fault}-{number}")] += 1
                    except (AssertionError, OSError) as error:
                        counts["harm"] += 1
                        found.append(f"{name}, {fault} {number}: {error}")
                came = "; ".join(f"{count} {what}" for what, count in counts.items())
                print(f"| {name} | {fault} | {len(trials)} | {came} | {time.monotonic() - began:.0f} |", flush=True)
    print("\n".join(found))
    return 1 if found else 0


def prepare(root: Path) -> Stores:
    """Stores in which every phase that others need was done."""
    given = Stores(root)
    for name in ("data", "extract", "run"):
        do_in(PHASES[name], given)
    (folder,) = given.at("runs").glob("bifusion-s0-*")
    given.root.joinpath("weights").mkdir()
    shutil.copy(folder / "checkpoints/model.safetensors", given.root / "weights")
    return given


def _faults(
    phase: Phase, given: Stores, whole: Whole, *, sizes: int, removals: int
) -> dict[str, list[Callable[[Path], str]]]:
    shares = [(number + 0.02) / sizes for number in range(sizes)]
    return {
        "disk full": [
            lambda root, share=share: on_a_full_disk(phase, given, root, whole=whole, share=share) for share in shares
        ],
        "read-only": [lambda root: on_a_read_only_disk(phase, given, root, whole=whole)],
        "another user's": [lambda root: on_anothers_folder(phase, given, root, whole=whole)],
        "folder removed": [
            lambda root, at=at: with_its_folder_removed(phase, given, root, whole=whole, at=at)
            for at in range(1, removals + 1)
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
