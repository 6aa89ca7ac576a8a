"""A seeded handful of what ``make torture`` does by the hundred: nothing is lost by a kill or a stop."""

from __future__ import annotations

import subprocess
import sys

from ditr.paths import project_dir

HANDFUL = """
import random, signal, sys, tempfile
from pathlib import Path
from tests.torture.calls import Harm, install
from tests.torture.kills import Torture
from tests.torture.phases import PHASES
from tests.torture.stops import Request, stop

calls, draw = install(), random.Random(1)
with tempfile.TemporaryDirectory() as folder:
    torture = Torture(Path(folder), calls)
    prepare, train = PHASES["preparing"], PHASES["training, untracked"]
    trials = [torture.kill(prepare, Harm(kind="rename", number=draw.randint(2, 20)))]
    trials.append(torture.kill(train, Harm(kind="step", number=3, side="after")))
    at = Harm(kind="step", number=4, signals=(signal.SIGTERM,))
    trials.append(stop(torture, train, Request(number=signal.SIGTERM, twice=False, to_group=False, at=at)))
for trial in trials:
    print(trial.phase, trial.fault, trial.reached, trial.lost)
sys.exit(any(trial.lost or not trial.reached for trial in trials))
"""


def test_nothing_is_lost() -> None:
    """In a process of its own, which nothing has made threads or connections in that forks would not have."""
    ended = subprocess.run(
        [sys.executable, "-c", HANDFUL], cwd=project_dir(), capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
