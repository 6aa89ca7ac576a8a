"""The arms of a comparison: what finished runs of one spec left in their folders, seed by seed."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ditr.errors import Code, DitrError
from ditr.evaluation.match_table import MatchTable
from ditr.record.folder import Record, records_in
from ditr.record.state import RecordState, unreadable
from ditr.spec.diff import diff
from ditr.spec.models import Spec

_TOLD = 2
"""Fields that tell two arms of one name apart in a message."""
_SHORT = 6
"""Digits of a spec's hash that tell arms of one name apart."""


@dataclass(frozen=True, kw_only=True)
class ArmRun:
    """One finished training of an arm."""

    folder: Record
    state: RecordState
    spec: Spec

    @property
    def seed(self) -> int:
        assert self.state.seed is not None, "a training has a seed"
        return self.state.seed

    @cached_property
    def result(self) -> dict[str, Any]:
        """What result.json says."""
        return self.folder.read_result()

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What provenance.json says."""
        return self.folder.read_provenance() or {}

    @cached_property
    def table(self) -> MatchTable:
        """What its evaluation found, frame by frame."""
        return MatchTable.load(self.folder.require_whole(self.folder.matches))


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The finished runs of one spec."""

    label: str
    """Its name; with the start of its hash where other arms are called the same."""
    spec: Spec
    spec_hash: str
    variant: str
    runs: tuple[ArmRun, ...]
    """By seed; at least one."""

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @cached_property
    def tables(self) -> tuple[MatchTable, ...]:
        """Of each seed."""
        return tuple(run.table for run in self.runs)

    @property
    def max_seeds(self) -> tuple[int, ...]:
        """What its runs say of how many seeds may be added while one looks at them; one number, if any."""
        return tuple(dict.fromkeys(run.spec.max_seeds for run in self.runs if run.spec.max_seeds is not None))

    @property
    def missing_seeds(self) -> tuple[int, ...]:
        """Those of its spec that have no finished run."""
        return tuple(seed for seed in self.spec.seeds if seed not in self.seeds)


@dataclass(frozen=True, kw_only=True)
class Arms:
    """What there is to compare in a folder of records."""

    found: tuple[Arm, ...]
    """In the order in which they were begun."""
    left_out: tuple[str, ...]
    """A sentence about each record that cannot be read, for it may be a run of any of them, or is a copy of another."""
    runs: Path
    """The folder."""

    def called(self, wanted: Sequence[str]) -> Arms:
        """Those called so, in that order: by name, by ``name@hash`` with any number of its digits, by whole hash, or by
        the folder of a run.

        Raises
        ------
        DitrError: nothing or more than one thing is called so, or an arm is named twice.
        """
        self.require_some()
        return replace(self, found=_choose(self, wanted))

    def has(self, spec_hash: str) -> bool:
        """Whether there is one of a spec with this hash."""
        return any(arm.spec_hash == spec_hash for arm in self.found)

    def require_some(self) -> None:
        """Raises DitrError if there are none, with the reason of those that were left out."""
        if not self.found:
            raise _none_yet(self.runs, self.left_out)


def all_arms(runs: Path) -> Arms:
    """Every spec with a finished training in the folder ``runs``."""
    by_hash: dict[str, dict[int, ArmRun]] = {}
    left_out: list[str] = []
    for folder in records_in(runs):
        try:
            run = _finished_run(folder)
        except DitrError as error:
            left_out.append(f"{folder.path.name} is left out: {error.what}.")
            continue
        if run is None:
            continue
        first = by_hash.setdefault(run.state.spec_hash, {}).setdefault(run.seed, run)
        if first is not run:  # a copied folder is no further seed
            left_out.append(f"{folder.path.name} is left out: it is the same run as {first.folder.path.name}.")
    arms = [_arm(spec_hash, tuple(found.values())) for spec_hash, found in by_hash.items()]
    return Arms(found=_labelled(arms), left_out=tuple(left_out), runs=runs)


def _choose(arms: Arms, wanted: Sequence[str]) -> tuple[Arm, ...]:
    chosen: list[Arm] = []
    for text in wanted:
        found = [arm for arm in arms.found if _is_called(arm, text)]
        if not found:
            raise _unknown(text, arms)
        if len(found) > 1:
            each = ", ".join(f"{arm.label}{_apart(arm, found)}" for arm in found)
            what = f"{len(found)} different experiments are called '{text}'"
            raise DitrError(what, code=Code.RUN, where=str(arms.runs), fix=f"Name one of {each}, or its spec file.")
        if found[0] in chosen:
            fix = "Name each experiment once."
            raise DitrError(f"'{text}' is an arm that was named before", code=Code.RUN, fix=fix)
        chosen.append(found[0])
    return tuple(chosen)


def _is_called(arm: Arm, text: str) -> bool:
    name, _, digits = text.partition("@")
    if Path(text).name in [run.folder.path.name for run in arm.runs]:
        return True
    return text == arm.spec_hash or (name == arm.spec.name and arm.spec_hash.startswith(digits))


def _apart(arm: Arm, others: Sequence[Arm]) -> str:
    """What its spec says otherwise than some of the others, and one of its runs."""
    differ = {found.path: found.first for other in others for found in diff(arm.spec, other.spec)}
    said = [f"{path} {value}" for path, value in list(differ.items())[:_TOLD]]
    return f" ({', '.join([*said, arm.runs[0].folder.path.name])})"


def _unknown(text: str, arms: Arms) -> DitrError:
    labels = [arm.label for arm in arms.found]
    close = difflib.get_close_matches(text, labels, n=1)
    guess = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(labels)}"
    fix = "`ditr ls` lists all runs; only finished trainings can be compared."
    what = _with_left_out(f"no finished run is called '{text}'{guess}", arms.left_out)
    return DitrError(what, code=Code.RUN, where=str(arms.runs), fix=fix)


def _none_yet(runs: Path, left_out: Sequence[str]) -> DitrError:
    fix = "Run the specs first, such as: ditr run specs/*.yaml"
    if left_out:
        fix = "Restore what is damaged, or run it again with --force; upgrade ditr for what a newer one wrote."
    what = _with_left_out("there is no finished run yet", left_out)
    return DitrError(what, code=Code.RUN, where=str(runs), fix=fix)


def _with_left_out(what: str, left_out: Sequence[str]) -> str:
    return "".join((what, *(f"\n    {one}" for one in left_out)))


def _arm(spec_hash: str, runs: tuple[ArmRun, ...]) -> Arm:
    newest = runs[-1]
    spec = newest.spec
    return Arm(
        label=spec.name,
        spec=spec,
        spec_hash=spec_hash,
        variant=newest.state.variant,
        runs=tuple(sorted(runs, key=lambda run: run.seed)),
    )


def _labelled(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    names = [arm.spec.name for arm in arms]
    return tuple(
        replace(arm, label=f"{arm.spec.name}@{arm.spec_hash[:_SHORT]}") if names.count(arm.spec.name) > 1 else arm
        for arm in arms
    )


def _finished_run(folder: Record) -> ArmRun | None:
    """None for a record of something else.

    Raises
    ------
    DitrError: it lacks what every finished run has, or that cannot be read.
    """
    state = folder.state()
    if state is None or state.kind != "run" or state.state != "finished":
        return None
    if state.seed is None:
        raise unreadable(folder.state_file, ValueError("a training without a seed"))
    for file in (folder.spec, folder.provenance, folder.result, folder.matches):
        if not file.is_file():
            raise unreadable(file, FileNotFoundError(errno.ENOENT, "a finished run lacks it"))
    for file in (folder.matches, folder.instances):
        folder.require_whole(file)
    run = ArmRun(folder=folder, state=state, spec=folder.read_spec())
    for file, content, needed in (
        (folder.provenance, run.provenance, ("dataset", "start_weights", "device")),
        (folder.result, run.result, ("split", "n_frames")),
    ):
        if lacking := [name for name in needed if name not in content]:
            raise unreadable(file, ValueError(f"it lacks {lacking[0]}"))
    return run
