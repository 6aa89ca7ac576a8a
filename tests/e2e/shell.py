"""ditr as a user types it, made small: two frames to train on and two to evaluate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ditr.paths import project_dir
from tests.e2e import warm

ARMS = ("baseline", "bifusion", "fpn_inject")
SMALL = (
    "dataset.name=synthrooms_tiny",
    "checkpoint=null",
    "schedule.epochs=2",
    "schedule.batch_size=1",
    "schedule.validate_every=1",
    "execution.workers=0",
    "tracking.panels=1",
)


@dataclass(frozen=True)
class Shell:
    """Runs ditr as a user does, with stores of its own."""

    stores: Path
    cache: Path

    @property
    def runs(self) -> Path:
        return self.stores / "runs"

    def environment(self) -> dict[str, str]:
        own = {"DITR_RUNS": self.runs, "DITR_DATA": self.stores / "data", "DITR_WEIGHTS": self.stores / "weights"}
        return os.environ | {name: str(path) for name, path in own.items()} | {"DITR_CACHE": str(self.cache)}

    def ditr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return warm.run(arguments, at=project_dir(), environment=self.environment())

    def folder(self, name: str) -> Path:
        (folder,) = self.runs.glob(f"{name}-s0-*")
        return folder


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ditr.cli.main", *arguments]


def run_arguments(*arms: str, extra: tuple[str, ...] = ()) -> list[str]:
    return ["run", *(f"specs/{arm}.yaml" for arm in arms), *options((*SMALL, *extra))]


def options(overrides: tuple[str, ...]) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def ignore_ctrl_c() -> None:
    """As a shell does for its background jobs; to be called in the new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
