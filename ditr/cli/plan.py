"""``ditr plan``: what a command would run, and what that costs, before anything starts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from ditr.cli.display import duration, open_display
from ditr.cli.options import Overrides
from ditr.cli.run import plan_table
from ditr.cli.spec_files import SpecFiles
from ditr.cli.specs import load_specs
from ditr.cli.study_size import study_text
from ditr.cli.tables import text_table
from ditr.errors import Code, DitrError
from ditr.paths import runs_dir
from ditr.progress import Progress
from ditr.runner.costs import Costs, MapCosts, alike, costs
from ditr.runner.execution import settle_loaded
from ditr.runner.launchers.standing import held_tickets
from ditr.runner.plan import PlannedRun, plan
from ditr.runner.probe import Probe, probe, seconds_left, seconds_of_a_run
from ditr.runner.slots import require_fit
from ditr.runner.totals import Totals, runs_of, totals
from ditr.spec.load import LoadedSpec
from ditr.spec.registry import Registry

_GIB = 2**30


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command("plan")(show_plan)


def show_plan(
    specs: SpecFiles,
    overrides: Overrides = None,
    measure: Annotated[
        bool, typer.Option("--probe", help="Measure two steps of each spec here, and estimate times and memory.")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(metavar="HOURS", help="Measure as --probe, and refuse more GPU-hours than these: 40h."),
    ] = None,
    seeds_for: Annotated[
        float | None,
        typer.Option(
            metavar="DIFFERENCE",
            help="Also say how many seeds and scenes find such a difference in AP50 (0.02), by what finished runs of "
            "these specs vary.",
        ),
    ] = None,
) -> None:
    """Say what `ditr run` would do with these specs, and what that costs.

    Weights are counted in the model itself, operations in forward passes of a few frames, and feature maps in the
    store. Nothing is run or made, but for --probe an embedded data set that is missing.
    """
    hours = None if budget is None else _hours(budget)
    measure |= hours is not None
    registry = Registry()
    written = load_specs(specs, registry=registry, overrides=overrides)
    loaded = [settle_loaded(spec) for spec in written]
    planned = plan(loaded, registry=registry, runs=runs_dir(), force=False, queued=held_tickets(runs_dir()))
    if measure:
        require_fit(planned, slots=())
    found = costs([spec.spec for spec in loaded], registry=registry, make_data=measure)
    with open_display() as display:
        probes = _probes(loaded, found, progress=display.progress) if measure else [None] * len(loaded)
    total = totals(loaded, found, planned, probes)
    typer.echo(plan_table(planned))
    typer.echo(_cost_table(loaded, found, planned))
    typer.echo(_weight_table(loaded, found))
    if measure:
        typer.echo(_time_table(loaded, found, planned, probes))
    for note in (*_notes(found, planned), *_in_all(total)):
        typer.echo(note)
    if seeds_for is not None:
        typer.echo(f"\n{study_text(written, seeds_for, registry=registry)}", nl=False)
    if hours is not None:
        total.require_within(hours)


def _probes(loaded: Sequence[LoadedSpec], found: Sequence[Costs], *, progress: Progress) -> list[Probe | None]:
    """Of each spec, None where its data are not here; those whose steps cost the same are measured once."""
    measured: dict[str, Probe] = {}
    for position, (spec, one) in enumerate(zip(loaded, found, strict=True)):
        progress("probe", position, len(loaded))
        if one.forward is not None and alike(spec.spec) not in measured:
            measured[alike(spec.spec)] = probe(spec.spec, makes_maps=bool(one.maps and one.maps.missing))
    progress("probe", len(loaded), len(loaded))
    return [measured.get(alike(spec.spec)) for spec in loaded]


def _cost_table(loaded: Sequence[LoadedSpec], found: Sequence[Costs], planned: Sequence[PlannedRun]) -> str:
    columns = ("spec", "to run", "steps each", "sparse GFLOP", "dense GFLOP", "2D GFLOP")
    of_maps = ("maps to make", "GiB", "TFLOP", "maps there", "GiB")
    rows = []
    for spec, one in zip(loaded, found, strict=True):
        forward, maps = one.forward, one.maps or MapCosts()
        rows.append(
            (
                spec.spec.name,
                len(runs_of(spec, planned)),
                one.steps,
                forward and forward.sparse / 1e9,
                forward and forward.dense / 1e9,
                _product(1 / 1e9, maps.flops_each),
                maps.missing,
                _product(maps.bytes_each / _GIB, maps.missing),
                _product(1 / 1e12, maps.missing, maps.flops_each),
                maps.present,
                _product(maps.bytes_each / _GIB, maps.present),
            )
        )
    return text_table((*columns, *of_maps), rows)


def _weight_table(loaded: Sequence[LoadedSpec], found: Sequence[Costs]) -> str:
    parts = list(dict.fromkeys(part for one in found for part in one.weights))
    rows = [
        (spec.spec.name, one.total_weights, *map(one.weights.get, parts))
        for spec, one in zip(loaded, found, strict=True)
    ]
    return text_table(("spec", "weights", *parts), rows)


def _time_table(
    loaded: Sequence[LoadedSpec],
    found: Sequence[Costs],
    planned: Sequence[PlannedRun],
    probes: Sequence[Probe | None],
) -> str:
    columns = ("spec", "step ms", "read ms", "frame ms", "MiB", "a run", "all to run", "maps to make")
    rows: list[tuple[Any, ...]] = []
    for spec, one, measured in zip(loaded, found, probes, strict=True):
        if measured is None:
            rows.append((spec.spec.name, *(None for _ in columns[1:])))
            continue
        a_run = seconds_of_a_run(spec.spec, costs=one, probe=measured)
        left = sum(seconds_left(run, costs=one, probe=measured) for run in runs_of(spec, planned))
        maps = (one.maps.missing or 0) * measured.map_ms / 1000 if one.maps else 0.0
        took = (measured.step_ms, measured.read_ms, measured.frame_ms, measured.peak_mem_mb)
        rows.append((spec.spec.name, *map(round, took), duration(a_run), duration(left), duration(maps)))
    where = next((f"on {one.device}, MiB of {one.memory_of}" for one in probes if one), "no data")
    return text_table(columns, rows) + (
        f"measured {where}: a step, reading its batch in one process, evaluating a frame\n"
    )


def _notes(found: Sequence[Costs], planned: Sequence[PlannedRun]) -> Iterator[str]:
    try:
        require_fit(planned, slots=())
    except DitrError as error:
        yield f"`ditr run` on this machine would be refused: {error.where}: {error.what}"
    if any(one.forward is None for one in found):
        yield "where data are not on this machine or not made yet, what depends on them is not known (-)"
    yield "GFLOP of a frame's forward pass; a training step takes about three times as many for each frame of its batch"


def _in_all(total: Totals) -> Iterator[str]:
    gib = [None if size is None else size / _GIB for size in (total.record_bytes, total.map_bytes, total.data_bytes)]
    each = ", ".join(
        f"{name} {'not known' if size is None else f'{size:.3g}'}"
        for name, size in zip(("records", "maps", "data"), gib, strict=True)
    )
    yield f"all {total.runs} that would run write, in GiB: {each}"
    if total.device and total.seconds is not None and total.map_seconds is not None:
        one_by_one = f"{duration(total.seconds)} one after the other, and {duration(total.map_seconds)} for maps"
        yield f"they take {total.hours:.3g} {total.unit}: {one_by_one}"


def _hours(text: str) -> float:
    """Of a budget such as 40h."""
    if not re.fullmatch(r"\d+(\.\d+)?h", text):
        raise DitrError(f"'{text}' is no number of hours", code=Code.RUN, where="--budget", fix="Write it so: 40h")
    return float(text[:-1])


def _product(unit: float, *factors: int | None) -> float | None:
    """Their product in a unit, or None where one is not known."""
    known = [factor for factor in factors if factor is not None]
    return unit * math.prod(known) if len(known) == len(factors) else None
