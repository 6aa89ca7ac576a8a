"""Ray: a task a job, on a running cluster or one that is started on this machine.

What Ray does to a task is in (docs/reference/clusters.md, Ray's tasks).
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ditr.errors import Code, DitrError
from ditr.profiles import RayProfile
from ditr.runner.job_text import job_text
from ditr.runner.launchers import Ending, Stage, process
from ditr.runner.launchers.attendant import Attendant
from ditr.runner.launchers.handover import hand_over
from ditr.runner.launchers.tickets import JobFiles
from ditr.runner.plan import PlannedRun

_LOST = 10
"""So often a task is begun again whose node or process is gone."""
_ENVIRONMENT = ("DITR_RUNS", "DITR_DATA", "DITR_WEIGHTS", "DITR_CACHE", "DITR_REGISTRY")


class RayLauncher:
    """Tasks that end with the command; the driver of a cluster submits that: ``ray job submit -- ditr run ...``."""

    outlives = False

    def __init__(self, profile: RayProfile, *, runs: Path) -> None:
        self._profile = profile
        self._files = JobFiles(runs)
        self._tasks: dict[str, Any] = {}
        self._runs: dict[str, PlannedRun] = {}
        self._ended: dict[str, Ending] = {}
        self._held = ExitStack()

    def takes(self, run: PlannedRun) -> bool:
        return run.runs

    def submit(self, runs: Sequence[PlannedRun]) -> None:
        """Each needs its part of what the profile asks for a job.

        Raises
        ------
        DitrError: Ray is not installed, there is no cluster at the address, or no node of it has what a run needs.
        """
        ray = _connected(self._profile)
        gpus = self._profile.gpus / self._profile.runs_a_job
        _require_node(ray.nodes(), cpus=self._cores, gpus=gpus)
        attend = ray.remote(num_cpus=self._cores, num_gpus=gpus, memory=self._memory, max_retries=_LOST)(_attend)
        holder = self._held.enter_context(self._files.holding())
        for run in hand_over(runs, profile=self._profile, files=self._files):
            self._files.give(run, launcher="ray", holder=holder)
            self._runs[run.key] = run
            self._tasks[run.key] = attend.remote(self._attendant(run), os.getcwd())

    def stages(self) -> Mapping[str, Stage]:
        """A run whose folder no process holds waits for its place, or for its first line."""
        for key in self._done():
            self._ended[key] = self._ending(key, self._tasks.pop(key))
            self._files.forget([key])
        if not self._tasks:
            self._held.close()
        stages: dict[str, Stage] = {key: "running" if self._is_running(key) else "queued" for key in self._tasks}
        return stages | self._ended

    def stop(self) -> None:
        """By files that the tasks look for, those that wait included."""
        for key in self._tasks:
            self._files.ask_to_stop(key)

    def abandon(self, *, at_once: bool) -> None:
        """Ray ends the tasks of a driver that leaves; the kernel asks their jobs to save then."""
        if not self._tasks:
            return
        import ray

        if not at_once:
            self.stop()
            ray.wait(list(self._tasks.values()), num_returns=len(self._tasks))
        ray.shutdown()
        self._held.close()

    @property
    def _cores(self) -> int:
        """Of each run: Ray takes no part of a number beyond one."""
        return max(1, self._profile.cpus // self._profile.runs_a_job)

    @property
    def _memory(self) -> int | None:
        """Of each run, in bytes."""
        wanted = self._profile.memory_gb
        return None if wanted is None else round(wanted / self._profile.runs_a_job * 2**30)

    def _attendant(self, run: PlannedRun) -> Attendant:
        profile = self._profile
        return Attendant(
            texts=(job_text(run),),
            command=tuple(sys.argv[1:]),
            python=_python(profile),
            cores=self._cores,
            environment={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )

    def _done(self) -> list[str]:
        import ray

        if not self._tasks:
            return []
        done, _ = ray.wait(list(self._tasks.values()), num_returns=len(self._tasks), timeout=0)
        return [key for key, task in self._tasks.items() if task in done]

    def _is_running(self, key: str) -> bool:
        return self._runs[key].folder.is_locked()

    def _ending(self, key: str, task: Any) -> Ending:
        import ray

        try:
            ray.get(task)
        except ray.exceptions.RayError as error:
            return Ending(failure=f"Ray gave its task up: {error}")
        return self._files.ending(key) or Ending(interrupted=True)


def _require_node(nodes: Sequence[Mapping[str, Any]], *, cpus: int, gpus: float) -> None:
    """Ray would wait for one for ever."""
    there = [(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in nodes if node["Alive"]]
    if not any(cpus <= its_cpus and gpus <= its_gpus for its_cpus, its_gpus in there):
        have = "; ".join(f"{its_cpus:g} CPUs and {its_gpus:g} GPUs" for its_cpus, its_gpus in there)
        what = f"no node of Ray's has {cpus} CPUs and {gpus:g} GPUs for a run: they have {have}"
        raise DitrError(what, code=Code.ENVIRONMENT, fix="Ask for less: cpus and gpus of the profile in ditr.toml.")


def _attend(attendant: Attendant, folder: str) -> None:
    """On a node."""
    os.chdir(folder)
    attendant()


def _python(profile: RayProfile) -> tuple[str, ...]:
    """What starts Python, after the profile's lines and in its container."""
    if not (profile.setup or profile.container):
        return process.PYTHON
    python = f"{profile.container} python" if profile.container else shlex.join(process.PYTHON)
    return ("bash", "-c", "\n".join(["set -e", *profile.setup, f'exec {python} "$@"']), "ditr")


def _connected(profile: RayProfile) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when it is imported
    try:
        import ray
    except ImportError:
        fix = "pip install 'ditr[ray]'"
        raise DitrError("--on ray needs Ray, which is not installed", code=Code.ENVIRONMENT, fix=fix) from None
    if ray.is_initialized():
        return ray
    try:
        ray.init(address=profile.address, log_to_driver=False, include_dashboard=False)
    except ConnectionError as error:
        fix = "Start one with `ray start --head`, or leave address out of the profile for one on this machine alone."
        what = f"there is no cluster of Ray's at {profile.address}: {error}"
        raise DitrError(what, code=Code.ENVIRONMENT, fix=fix) from error
    return ray
