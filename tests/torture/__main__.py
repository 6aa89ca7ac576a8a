"""``make torture``: kills, stops and twins of every command that writes; prints what was lost, and 1 if any was."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

_SHOWN = 6
"""Lines of what one trial lost."""


def main() -> int:
    """Prints a row a phase and kind of fault as it is done, each after what was lost in it."""
    from tests.torture.calls import install
    from tests.torture.kills import Torture, kills
    from tests.torture.phases import PHASES
    from tests.torture.stops import stops
    from tests.torture.twins import twins

    faults = {"kill": kills, "stop": stops, "twins": twins}
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="of each kind of fault, in each phase")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fault", action="append", choices=[*faults], help="one of them; all without")
    parser.add_argument("phases", nargs="*", help=f"of {', '.join(PHASES)}; all without")
    asked = parser.parse_args()
    torn = False
    calls = install()
    print(f"| {'phase':26} | {'fault':6} | tried | reached | lost |    s |")
    print(f"|{'-' * 28}|{'-' * 8}|------:|--------:|-----:|-----:|")
    with tempfile.TemporaryDirectory() as folder:
        torture = Torture(Path(folder), calls)
        for name in asked.phases or PHASES:
            torture.reference(PHASES[name])
            for fault in asked.fault or faults:
                began, tried, reached, lost = time.monotonic(), 0, 0, 0
                draw = random.Random(f"{asked.seed} {name} {fault}")
                for trial in faults[fault](torture, PHASES[name], count=asked.count, draw=draw):
                    tried, reached, lost = tried + 1, reached + trial.reached, lost + bool(trial.lost)
                    for line in trial.lost[:_SHOWN]:
                        print(f"{name}, {trial.fault}: {line}", flush=True)
                took = time.monotonic() - began
                print(f"| {name:26} | {fault:6} | {tried:>5} | {reached:>7} | {lost:>4} | {took:>4.0f} |", flush=True)
                torn = torn or lost > 0
    return int(torn)


if __name__ == "__main__":
    sys.exit(main())
