"""What a command will do before it does anything: which runs are new, unfinished or done already."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ditr.record.folder import Record, find_record
from ditr.record.recording import Identity
from ditr.record.state import Kind
from ditr.runner.execution import Origins, settle_loaded
from ditr.runner.unchanged import Present
from ditr.spec.identity import run_key, spec_hash, variant
from ditr.spec.load import LoadedSpec
from ditr.spec.models import Device, Spec
from ditr.spec.registry import Registry

Status = Literal["new", "resume", "again", "finished", "same", "busy", "queued"]


@dataclass(frozen=True, kw_only=True)
class PlannedRecord:
    """What is to be made of one spec, and where to."""

    spec: Spec
    source: Path
    """The spec file."""
    overrides: tuple[str, ...]
    spec_hash: str
    key: str
    variant: str
    folder: Record

    def identity(self, *, kind: Kind, seed: int | None) -> Identity:
        """Of the record that is made."""
        return Identity(
            run_key=self.key,
            spec_hash=self.spec_hash,
            name=self.spec.name,
            variant=self.variant,
            seed=seed,
            kind=kind,
        )


@dataclass(frozen=True, kw_only=True)
class PlannedRun(PlannedRecord):
    """A training of one spec with one seed."""

    seed: int
    origins: Origins
    """Where the spec's values were written, for what is wrong with one here."""
    status: Status
    """new and again start, resume goes on; finished was done before, same is another run of this plan, busy runs in
    another process now, queued was given to a launcher before."""
    same_as: str = ""
    """Name of the run folder that stands for this one, if it is not named after this spec."""

    @property
    def runs(self) -> bool:
        return self.status in ("new", "resume", "again")


def plan(
    specs: Sequence[LoadedSpec],
    *,
    registry: Registry,
    runs: Path,
    force: bool,
    device: Device | None = None,
    elsewhere: bool = False,
    queued: Collection[str] = (),
) -> tuple[PlannedRun, ...]:
    """Every spec with each of its seeds, in the order given.

    Two specs with the same identity are the same experiment whatever they are called: it is run once. A spec that
    leaves its engine open is that of the engine it has here: with another it is another run.

    Parameters
    ----------
    runs: folder of the run folders.
    force: finished runs are run again, unfinished ones from the start.
    device: where the runs go whose spec leaves it open; None as ``settle`` picks it.
    elsewhere: that is on another machine.
    queued: keys of runs that a launcher has already.

    Raises
    ------
    UnreadableRecord: a finished run that would be skipped is damaged.
    DitrError: a finished run read a file that has changed since, or no engine can use the device.
    """
    planned: list[PlannedRun] = []
    present = Present(registry)
    for loaded in (settle_loaded(one, device=device, elsewhere=elsewhere) for one in specs):
        digest = spec_hash(loaded.spec, registry=registry)
        for seed in loaded.spec.seeds:
            first = next((run for run in planned if run.key == run_key(digest, seed)), None)
            one = _planned(loaded, seed, digest, runs=runs, force=force, first=first, present=present)
            planned.append(replace(one, status="queued") if one.runs and one.key in queued else one)
    return tuple(planned)


def _planned(
    loaded: LoadedSpec,
    seed: int,
    digest: str,
    *,
    runs: Path,
    force: bool,
    first: PlannedRun | None,
    present: Present,
) -> PlannedRun:
    key = run_key(digest, seed)
    found = first.folder if first else find_record(runs, key)
    folder = found or Record(runs / f"{loaded.spec.name}-s{seed}-{key}")
    other_name = folder.path.name != f"{loaded.spec.name}-s{seed}-{key}"
    status: Status = "same" if first else _status(folder, force=force)
    if status == "finished":
        folder.require_all_whole()
        present.require_same(loaded.spec, folder)
    return PlannedRun(
        spec=loaded.spec,
        source=loaded.path,
        overrides=loaded.overrides,
        origins=loaded.origins,
        seed=seed,
        spec_hash=digest,
        key=key,
        variant=variant(loaded.spec),
        folder=folder,
        status=status,
        same_as=folder.path.name if first or other_name else "",
    )


def _status(folder: Record, *, force: bool) -> Status:
    state = folder.state()
    if state is None:
        return "new"
    if folder.is_locked():
        return "busy"
    if force:
        return "again"
    return "finished" if state.state == "finished" else "resume"
