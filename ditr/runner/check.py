"""Checks specs before any training: stage by stage, forward only; what was found is a row beside those of runs."""

from __future__ import annotations

import hashlib
import json
import math
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditr.errors import DitrError, Interrupted
from ditr.files import write_json, write_text
from ditr.machine_errors import as_mistake
from ditr.paths import portable_text
from ditr.progress import Progress
from ditr.record.folder import Record
from ditr.record.recording import Draft, draft
from ditr.runner.account import count_weights
from ditr.runner.check_subject import CheckRequest, PreparedSubject, prepare_check
from ditr.runner.execution import how, pick_device, settle_loaded
from ditr.runner.host import Host
from ditr.runner.outputs import result_of_inputs, write_provenance
from ditr.runner.plan import PlannedRecord
from ditr.runner.session import use_cores
from ditr.spec.dump import to_yaml
from ditr.spec.execution import in_float32
from ditr.spec.identity import canonical_json, spec_hash, variant
from ditr.spec.load import LoadedSpec

if TYPE_CHECKING:
    from ditr.checks.measure import Check
    from ditr.checks.subject import Subject


@dataclass(frozen=True, kw_only=True)
class SpecCheck:
    """What became of the check of one spec."""

    name: str
    """Of the spec."""
    asked: CheckRequest
    checks: tuple[Check, ...] = ()
    """In the order of the stages; none if ``folder`` is None."""
    folder: Record | None = None
    """None if it could not be checked at all."""
    replaced: Path | None = None
    """Where the same check of before is now; None if there was none."""
    error: Exception | None = None
    """Why it could not be checked."""

    @property
    def failed(self) -> int:
        """How many checks failed."""
        return sum(not check.passed for check in self.checks)


def check_all(specs: Sequence[LoadedSpec], *, asked: CheckRequest, host: Host, runs: Path) -> Iterator[SpecCheck]:
    """Every spec, whatever the ones before said.

    A stage that raises is a failed check of it. A check is written as a draft, which then replaces the same check of
    before.

    Parameters
    ----------
    runs: folder of the run folders.

    Raises
    ------
    Interrupted: the user stopped it; the specs before are recorded.
    """
    for loaded in specs:
        host.say(f"{loaded.spec.name}: check of {loaded.path}")
        try:
            with draft(runs, name=f"{loaded.spec.name}-check") as work:
                checked = _Work(_as_checked(loaded), asked=asked, draft=work, host=host).run()
        except Interrupted:
            raise
        except Exception as error:
            checked = SpecCheck(name=loaded.spec.name, asked=asked, error=as_mistake(error) or error)
        yield checked


def _as_checked(loaded: LoadedSpec) -> LoadedSpec:
    """With the engine that a run has here, and in float32, of which the limits are."""
    return settle_loaded(replace(loaded, spec=in_float32(loaded.spec)))


@dataclass
class _Work:
    """One check under way."""

    loaded: LoadedSpec
    asked: CheckRequest
    draft: Draft
    host: Host

    def run(self) -> SpecCheck:
        spec, host = self.loaded.spec, self.host
        progress = host.stop.stopping(host.progress)
        device = pick_device(spec, origins=self.loaded.origins)
        use_cores(device)
        self.say(f"  on {device} with {how(spec)}")
        prepared = prepare_check(
            spec, asked=self.asked, registry=host.registry, device=device, progress=progress, say=self.say
        )
        planned = self._planned()
        write_text(self.draft.folder.spec, to_yaml(spec))
        facts = write_provenance(
            planned, inputs=prepared.inputs, weights={"start_weights": prepared.start}, device=device
        )
        checks = tuple(self._looked_at(prepared.subject, progress))
        self._write(planned, prepared, checks=checks, facts=facts)
        placed = self.draft.finish(self.draft.state(planned.identity(kind="check", seed=prepared.subject.seed)))
        host.teller.tell(placed.folder)
        return SpecCheck(
            name=spec.name, asked=self.asked, checks=checks, folder=placed.folder, replaced=placed.replaced
        )

    def say(self, line: str) -> None:
        self.host.say(line)
        self.draft.folder.append_log(line)

    def _looked_at(self, subject: Subject, progress: Progress) -> Iterator[Check]:
        from ditr.checks.measure import Check, in_a_line
        from ditr.checks.stages import run_stage

        for stage in self.asked.stages:
            try:
                for check in run_stage(stage, subject, every_map=self.asked.every_map, progress=progress):
                    yield _finite(check)
            except Interrupted:
                raise
            except Exception as error:
                self.draft.folder.append_log(traceback.format_exc())
                message = in_a_line(error) if isinstance(error, DitrError) else f"{type(error).__name__}: {error}"
                yield Check(
                    stage=stage,
                    name="completed",
                    value=None,
                    limit="without an error",
                    passed=False,
                    detail=f"{message}\nthe traceback is in {self.draft.folder.log_file.name} of this check's folder",
                )

    def _planned(self) -> PlannedRecord:
        """Its key is of all that decides a check: the spec, the limits, and what was asked for."""
        spec = self.loaded.spec
        decides = {
            "spec": spec_hash(spec, registry=self.host.registry),
            "seed": spec.seeds[0],
            "limits": spec.checks.model_dump(mode="json"),
            **asdict(self.asked),
        }
        digest = hashlib.sha256(canonical_json(decides).encode()).hexdigest()
        return PlannedRecord(
            spec=spec,
            source=self.loaded.path,
            overrides=self.loaded.overrides,
            spec_hash=str(decides["spec"]),
            key=digest[:10],
            variant=variant(spec),
            folder=self.draft.folder,
        )

    def _write(
        self, planned: PlannedRecord, prepared: PreparedSubject, *, checks: tuple[Check, ...], facts: dict[str, Any]
    ) -> None:
        failed = sum(not check.passed for check in checks)
        result = result_of_inputs(planned, inputs=prepared.inputs, facts=facts) | {
            "n_frames": len(prepared.subject.frames),
            "params_m": count_weights(prepared.subject.model) / 1e6,
            "stages": list(self.asked.stages),
            "checks": len(checks),
            "failed_checks": failed,
        }
        rows = "".join(json.dumps(asdict(check)) + "\n" for check in checks)
        write_text(self.draft.folder.checks, portable_text(rows))
        write_json(self.draft.folder.result, result)


def _finite(check: Check) -> Check:
    """JSON has no NaN and no infinity: such a value is told in words."""
    if check.value is None or math.isfinite(check.value):
        return check
    detail = f"the value is {check.value}" + (f"; {check.detail}" if check.detail else "")
    return replace(check, value=None, detail=detail)
