"""What all planned runs cost together: time on the device, and disk for what they write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ditr.errors import Code, DitrError
from ditr.runner.costs import Costs
from ditr.runner.plan import PlannedRun
from ditr.runner.probe import Probe, seconds_left
from ditr.spec.load import LoadedSpec
from ditr.spec.models import Spec

_WEIGHT_BYTES = 16
"""float32, once in the weights and in the saved state with AdamW's two moments."""
_STEP_BYTES = 1_000
"""The rows of metrics."""
_FRAME_BYTES = 6_000
"""Match table, instances and the frame's row; as measured on embedded data, as are the two below."""
_PANEL_BYTES = 1_350_000
"""A panel, and the frame that is kept for it."""
_DATA_FRAME_BYTES = 1_340_000
"""Of an embedded set that is made."""
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Of what would run; None where that hangs on data or a measurement that are not here."""

    runs: int
    seconds: float | None
    """Of all runs, one after the other, without maps."""
    map_seconds: float | None
    device: str | None
    """That was measured."""
    record_bytes: float | None
    map_bytes: float | None
    data_bytes: float
    """Of embedded data sets that are not made yet."""
    each: tuple[tuple[str, int, float | None], ...]
    """Name, runs and seconds of each spec that would run."""

    @property
    def hours(self) -> float | None:
        """Of one device, with those for maps."""
        if self.seconds is None or self.map_seconds is None:
            return None
        return (self.seconds + self.map_seconds) / 3600

    @property
    def unit(self) -> str:
        return "CPU-hours" if self.device == "CPU" else "GPU-hours"

    def require_within(self, budget_h: float) -> None:
        """Raises DitrError if the runs take more hours, with what takes most, or if it is not known how many."""
        if self.hours is None:
            unknown = ", ".join(name for name, _, seconds in self.each if seconds is None)
            fix = "Plan where the data are."
            what = f"how long these specs take cannot be measured here: {unknown}"
            raise DitrError(what, code=Code.RUN, where="--budget", fix=fix)
        if self.hours > budget_h:
            most = sorted(self.each, key=lambda one: one[2] or 0, reverse=True)
            parts = ", ".join(f"{_hours(took or 0)} by {runs} of {name}" for name, runs, took in most[:_NAMED])
            what = (
                f"{self.runs} runs take {self.hours:.3g} {self.unit}, and {budget_h:g} are allowed; most of it: {parts}"
            )
            fix = "Run fewer specs, seeds or epochs, or allow more."
            raise DitrError(what, code=Code.RUN, where="--budget", fix=fix)


def runs_of(spec: LoadedSpec, planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Those planned of the spec that would run."""
    return [run for run in planned if run.source == spec.path and run.runs]


def totals(
    specs: Sequence[LoadedSpec],
    found: Sequence[Costs],
    planned: Sequence[PlannedRun],
    probes: Sequence[Probe | None],
) -> Totals:
    """Sums what each spec costs; maps and data that several share are counted once.

    Parameters
    ----------
    probes: of each spec; None where it was not measured.
    """
    each: list[tuple[str, int, float | None]] = []
    records: list[float | None] = []
    maps: dict[object, tuple[float | None, float | None]] = {}
    data: dict[str, float] = defaultdict(float)
    for spec, one, measured in zip(specs, found, probes, strict=True):
        left = runs_of(spec, planned)
        if not left:
            continue
        took = sum(seconds_left(run, costs=one, probe=measured) for run in left) if measured else None
        each.append((spec.spec.name, len(left), took))
        records.append(_times(len(left), _record_bytes(spec.spec, one)))
        maps[_store(spec.spec, one)] = _of_maps(one, measured)
        if one.frames and one.forward is None:
            data[spec.spec.dataset.name] = sum(one.frames) * _DATA_FRAME_BYTES
    return Totals(
        runs=sum(runs for _, runs, _ in each),
        seconds=_sum([took for _, _, took in each]),
        map_seconds=_sum([seconds for _, seconds in maps.values()]),
        device=next((one.device for one in probes if one), None),
        record_bytes=_sum(records),
        map_bytes=_sum([size for size, _ in maps.values()]),
        data_bytes=sum(data.values()),
        each=tuple(each),
    )


def _record_bytes(spec: Spec, one: Costs) -> float | None:
    if one.frames is None or one.steps is None:
        return None
    of_training = _WEIGHT_BYTES * one.total_weights + _STEP_BYTES * one.steps
    panels = min(spec.tracking.panels, one.frames[1])
    return of_training + _FRAME_BYTES * one.frames[1] + _PANEL_BYTES * panels


def _store(spec: Spec, one: Costs) -> Path | str | None:
    """What specs have in common that share maps; None for none."""
    if one.maps is None or spec.read_features is None:
        return None
    return one.maps.store or spec.dataset.name + spec.read_features.model_dump_json(exclude={"control"})


def _of_maps(one: Costs, measured: Probe | None) -> tuple[float | None, float | None]:
    """Bytes and seconds of those that are to be made."""
    if one.maps is None:
        return 0.0, 0.0
    missing = one.maps.missing
    return _times(one.maps.bytes_each, missing), _times(measured.map_ms / 1000 if measured else None, missing)


def _times(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one * other


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g}"
