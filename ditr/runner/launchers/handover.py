"""A planned run as it is given to a cluster: what is decided here, because the node may begin it more than once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ditr.profiles import Profile
from ditr.record.recording import move_aside
from ditr.runner.launchers.tickets import JobFiles
from ditr.runner.plan import PlannedRun
from ditr.spec.execution import on_device


def hand_over(runs: Sequence[PlannedRun], *, profile: Profile, files: JobFiles) -> list[PlannedRun]:
    """On the profile's device. One that is to run again is moved aside now: a job that begins a second time would do
    that to its own work.

    Raises
    ------
    DitrError: another process has begun the run since it was planned.
    """
    files.forget([run.key for run in runs])
    given = []
    for run in runs:
        if run.status == "again":
            with run.folder.lock():
                move_aside(run.folder)
            run = replace(run, status="new")
        given.append(replace(run, spec=on_device(run.spec, profile.device)))
    return given
