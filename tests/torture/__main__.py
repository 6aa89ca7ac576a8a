"""``make torture``: kills, stops and twins of every command that writes; prints what was lost, and 1 if anything was."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    """Prints a row a phase and kind of fault as it is done, then everything that was lost."""
    from tests.torture.calls import install
    from tests.torture.kills import Torture, kills
    from tests.torture.phases import PHASES

    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--count", type=int, default=24, help="kills of each phase")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("phases", nargs="*", help=f"of {', '.join(PHASES)}; all without")
    asked = parser.parse_args()
    found: list[str] = []
    calls = install()
    print(f"{'phase':26}{'fault':12}{'tried':>7}{'reached':>9}{'lost':>6}{'s':>6}")
    with tempfile.TemporaryDirectory() as folder:
        torture = Torture(Path(folder), calls)
        for name in asked.phases or PHASES:
            print(name, torture.reference(PHASES[name]).counts, round(torture.reference(PHASES[name]).seconds,2))
            began, tried, reached, lost = time.monotonic(), 0, 0, 0
            for trial in kills(torture, PHASES[name], count=asked.count, draw=random.Random(f"{asked.seed} {name}")):
                tried, reached, lost = tried + 1, reached + trial.reached, lost + bool(trial.lost)
                found += [f"{name}, killed {trial.fault}: {line}" for line in trial.lost]
            print(f"{name:26}{'SIGKILL':12}{tried:>7}{reached:>9}{lost:>6}{time.monotonic() - began:>6.0f}", flush=True)
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
