"""The launcher of ``--on NAME``: with what a profile of ``ditr.toml`` asks for, or with what it asks for itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ditr.errors import Code, DitrError
from ditr.filesystems import require_locks
from ditr.paths import cache_dir
from ditr.profiles import LAUNCHERS, Profile, SlurmProfile
from ditr.project import PROJECT_FILE, find_project
from ditr.runner.launchers import Launcher
from ditr.runner.plan import PlannedRun
from ditr.runner.slots import require_device


def profile_called(name: str) -> Profile:
    """The project's profile of this name, or that of the launcher that is called so.

    Raises
    ------
    DitrError: there is neither.
    """
    project = find_project()
    profiles = project.profiles if project else {}
    if name in profiles:
        return profiles[name]
    if name in LAUNCHERS:
        return LAUNCHERS[name]()
    known = ", ".join(sorted({*profiles, *LAUNCHERS}))
    fix = f"Name one of {known}, or add [profiles.{name}] to {PROJECT_FILE}."
    raise DitrError(f"--on {name}: there is no such profile", code=Code.ENVIRONMENT, fix=fix)


def require_place(planned: Sequence[PlannedRun], *, profile: Profile) -> None:
    """Raises
    ------
    DitrError: a run asks for another device than the profile's jobs have, or for more GPUs.
    """
    where = "GPUs" if profile.gpus else "the CPU"
    require_device(planned, device=profile.device, option=f"a job of the profile runs on {where}")
    for run in (run for run in planned if run.runs and profile.gpus):
        if run.spec.execution.gpus > profile.gpus:
            what = f"execution.gpus is {run.spec.execution.gpus}, and a job of the profile has {profile.gpus}"
            fix = f"Set gpus of the profile in {PROJECT_FILE}, or execution.gpus."
            raise DitrError(what, code=Code.ENVIRONMENT, where=str(run.source), fix=fix)


def launcher_for(profile: Profile, *, runs: Path) -> Launcher:
    """Of the profile, for records in the folder ``runs``.

    Raises
    ------
    DitrError: nodes would not see each other's locks there, or where data sets and maps are made once.
    """
    require_locks(runs, fix="Mount it with locks, or let DITR_RUNS name another folder that all machines see.")
    if not any("DITR_CACHE" in line for line in profile.setup):
        fix = 'Mount it with locks, or give nodes a place of their own: setup = ["export DITR_CACHE=/local/ditr"].'
        require_locks(cache_dir(), fix=fix)
    if isinstance(profile, SlurmProfile):
        from ditr.runner.launchers.slurm import SlurmLauncher

        return SlurmLauncher(profile, runs=runs)
    from ditr.runner.launchers.ray import RayLauncher

    return RayLauncher(profile, runs=runs)
