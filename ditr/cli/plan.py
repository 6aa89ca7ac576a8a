"""``ditr plan``: what a command would run, and what that costs, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ditr.cli.options import Overrides
from ditr.cli.run import plan_table
from ditr.cli.specs import load_specs
from ditr.cli.tables import text_table
from ditr.paths import runs_dir
from ditr.runner.costs import Costs, costs
from ditr.runner.plan import PlannedRun, plan
from ditr.spec.load import LoadedSpec
from ditr.spec.registry import Registry

_GIB = 2**30


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command("plan")(show_plan)


def show_plan(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC", help="Spec files.", show_default=False)],
    overrides: Overrides = None,
) -> None:
    """Say what `ditr run` would do with these specs, and what each costs: weights, steps, feature maps to be made.

    Nothing is made or run. Weights are counted in the model itself.
    """
    registry = Registry()
    loaded = load_specs(specs, registry=registry, overrides=overrides)
    planned = plan(loaded, registry=registry, runs=runs_dir(), force=False)
    found = [(spec, costs(spec.spec, registry=registry)) for spec in loaded]
    typer.echo(plan_table(planned))
    typer.echo(_cost_table(planned, found), nl=False)


def _cost_table(planned: Sequence[PlannedRun], found: Sequence[tuple[LoadedSpec, Costs]]) -> str:
    parts = list(dict.fromkeys(part for _, one in found for part in one.weights))
    rows = []
    for spec, one in found:
        runs = sum(run.runs for run in planned if run.source == spec.path)
        maps = one.missing_maps
        disk = None if maps is None else maps * one.map_bytes / _GIB
        by_part = [one.weights.get(part) for part in parts]
        rows.append((spec.spec.name, runs, one.steps, one.total_weights, *by_part, maps, disk))
    columns = ("spec", "to run", "steps each", "weights", *parts, "maps to make", "GiB")
    unknown = any(one.steps is None for _, one in found)
    note = "steps and maps are not known where the data are not on this machine\n" if unknown else ""
    return text_table(columns, rows) + note
