"""``make damage``: tries many damages of every kind of file, and prints what came of them; 1 if any came through."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.damage.kind import outcomes, unexpected
from tests.damage.test_damage import KINDS


def main() -> int:
    """Prints a row a kind as it is done, then everything that was not to come."""
    parser = argparse.ArgumentParser(prog="python -m tests.damage", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="damages of each kind of file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; all without")
    asked = parser.parse_args()
    found: list[str] = []
    print(f"{'kind':26}{'tried':>7}{'refused':>9}{'same':>7}{'other':>7}{'through':>9}{'cpu s':>7}")
    for name in asked.kinds or KINDS:
        began, counts = time.process_time(), Counter[str]()
        with tempfile.TemporaryDirectory() as folder:
            for what, came in outcomes(KINDS[name], Path(folder), count=asked.count, seed=asked.seed):
                through = unexpected(KINDS[name], came)
                counts["through" if through else came] += 1
                found += [f"{name}: {what}: {came}"] if through else []
        row = "".join(f"{counts[came]:>{width}}" for came, width in (("refused", 9), ("same", 7), ("other", 7)))
        took = time.process_time() - began
        print(f"{name:26}{counts.total():>7}{row}{counts['through']:>9}{took:>7.0f}", flush=True)
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
