"""What is harmed: one command each, on what the commands before it have made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A command of the torture's project."""

    name: str
    arguments: Callable[[Path], tuple[str, ...]]
    """Of the project's folder."""
    after: str | None
    """The phase on whose outcome it stands; None on a project where nothing was made."""
    stopped: str
    """What it says when it was asked to stop, once."""
    cores: int = 1
    keeps: tuple[str, ...] = ()
    """Files that are not made a second time, as patterns below the project."""
    busy: str | None = None
    """What the second of two says that were started at once; None where both do what was asked."""


def _said(*words: str) -> Callable[[Path], tuple[str, ...]]:
    return lambda project: words


def _eval(project: Path) -> tuple[str, ...]:
    (run,) = (project / "runs").glob("plain-s0-*")
    return ("eval", "specs/plain.yaml", "--checkpoint", str(run))


_WHOLE_MAPS = ("cache/features/*/*/*.npy",)
_WHOLE_FRAMES = ("data/desk/origin/*/*",)
PHASES: dict[str, Phase] = {
    phase.name: phase
    for phase in (
        Phase(name="data making", arguments=_said("data", "make", "rooms"), after=None, stopped="stopped"),
        Phase(
            name="data making, 2 cores",
            arguments=_said("data", "make", "rooms"),
            after=None,
            stopped="stopped",
            cores=2,
        ),
        Phase(
            name="preparing",
            arguments=_said("data", "import", "rgbd", "capture/desk", "desk"),
            after=None,
            stopped="stopped",
            keeps=_WHOLE_FRAMES,
            busy="another preparation works on this folder",
        ),
        Phase(
            name="first record",
            arguments=_said("import", "esam-log", "first.log"),
            after="data making",
            stopped="stopped",
        ),
        Phase(
            name="importing a log",
            arguments=_said("import", "esam-log", "second.log"),
            after="first record",
            stopped="stopped",
        ),
        Phase(
            name="extraction",
            arguments=_said("features", "extract", "specs/fused.yaml"),
            after="first record",
            stopped="stopped",
            keeps=_WHOLE_MAPS,
        ),
        Phase(
            name="training",
            arguments=_said("run", "specs/plain.yaml"),
            after="extraction",
            stopped="stopped and saved; to go on: ditr run specs/plain.yaml",
            busy="runs this now",
        ),
        Phase(
            name="training, untracked",
            arguments=_said("run", "specs/plain.yaml", "--set", "tracking.mlflow=false"),
            after="data making",
            stopped="stopped and saved; to go on: ditr run specs/plain.yaml",
            busy="runs this now",
        ),
        Phase(
            name="training, fused",
            arguments=_said("run", "specs/fused.yaml", "--set", "execution.workers=1"),
            after="extraction",
            stopped="stopped and saved; to go on: ditr run specs/fused.yaml",
            cores=2,
            busy="runs this now",
        ),
        Phase(
            name="--jobs parent",
            arguments=_said("run", "specs/plain.yaml", "--jobs", "2", "--set", "seeds=[1, 2]"),
            after="extraction",
            stopped="stopped and saved; to go on: ditr run specs/plain.yaml",
            cores=2,
            busy="runs this now",
        ),
        Phase(name="evaluation", arguments=_eval, after="training", stopped="stopped"),
        Phase(name="evaluation again", arguments=_eval, after="evaluation", stopped="stopped"),
        Phase(
            name="check",
            arguments=_said("check", "specs/fused.yaml", "--frames", "1"),
            after="training",
            stopped="stopped",
        ),
        Phase(name="views made anew", arguments=_said("results", "rebuild"), after="evaluation", stopped="stopped"),
    )
}


class Stage:
    """The folder in which all happens, always the same, so that two projects differ in no path."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.now = base / "now"

    def set(self, name: str) -> Path:
        """Puts what was kept there; returns the project's folder."""
        shutil.rmtree(self.now, ignore_errors=True)
        shutil.copytree(self.base / name, self.now, symlinks=True)
        return self.now

    def keep(self, name: str) -> None:
        """Keeps what is there."""
        shutil.rmtree(self.base / name, ignore_errors=True)
        shutil.copytree(self.now, self.base / name, symlinks=True)

    def has(self, name: str) -> bool:
        return (self.base / name).is_dir()
