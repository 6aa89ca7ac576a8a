"""``ditr validate | show | diff | schema``: what specs say, checked without running anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from ditr.cli.host import warn
from ditr.cli.options import Overrides
from ditr.cli.spec_files import SpecFile, SpecFiles
from ditr.cli.specs import load_specs
from ditr.cli.tables import text_table
from ditr.environment import lacks
from ditr.spec.diff import diff
from ditr.spec.identity import fusion_parts, run_hashes, shown_variant, spec_hash, variant
from ditr.spec.load import LoadedSpec, load_spec
from ditr.spec.problems import Problem, SpecErrors, shown_path
from ditr.spec.registry import Registry
from ditr.spec.schema import schema_text


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    app.command()(validate)
    app.command()(show)
    app.command("diff")(diff_specs)
    app.command()(schema)


def validate(
    files: SpecFiles,
    overrides: Overrides = None,
) -> None:
    """Check spec files and say everything that is wrong with them.

    A file whose name starts with `_` is a base: its keys and values are checked, and the rest in the specs that
    extend it. What a spec names and this machine has not, is a warning.
    """
    registry = Registry()

    def told(loaded: LoadedSpec) -> None:
        typer.echo(f"{shown_path(loaded.path)}: ok, {_headline(loaded, registry)}")

    specs = load_specs(files, registry=registry, overrides=overrides, loaded=told)
    found = {str(line): line for loaded in specs for line in lacks(loaded.spec, registry)}
    for line in found.values():
        warn(f"{line.group} {line.name} is not here: {line.found}\n  fix: {line.fix}")


def show(
    file: SpecFile,
    overrides: Overrides = None,
) -> None:
    """Print every value of a spec and where it came from."""
    registry = Registry()
    loaded = load_spec(file, registry=registry, overrides=overrides or ())
    typer.echo(f"{shown_path(file)}: {_headline(loaded, registry)}\n")
    rows = []
    for path, value in _leaves(loaded.spec.model_dump(mode="json")):
        origin = loaded.origins.get(path)
        rows.append((path, _shown(value), origin.in_short() if origin else "default"))
    typer.echo(text_table(("path", "value", "from"), rows), nl=False)


def diff_specs(
    first: SpecFile,
    second: SpecFile,
) -> None:
    """Print what differs between two specs, defaults included, and nothing else."""
    registry = Registry()
    problems: list[Problem] = []
    loaded: list[LoadedSpec] = []
    for file in (first, second):
        try:
            loaded.append(load_spec(file, registry=registry))
        except SpecErrors as error:
            problems.extend(error.problems)
    if problems:
        raise SpecErrors(problems)
    one, other = (entry.spec for entry in loaded)
    rows = [(found.path, _shown(found.first), _shown(found.second)) for found in diff(one, other)]
    if rows:
        typer.echo(text_table(("path", shown_path(first), shown_path(second)), rows), nl=False)
    if spec_hash(one, registry=registry) == spec_hash(other, registry=registry):
        typer.echo("Both state the same experiment: nothing that differs can change a number.")


def schema() -> None:
    """Print the JSON Schema of spec files, for editors."""
    typer.echo(schema_text(), nl=False)


def _headline(loaded: LoadedSpec, registry: Registry) -> str:
    spec = loaded.spec
    hashes = {engine: digest[:10] for engine, digest in run_hashes(spec, registry=registry).items()}
    which = list(hashes.values()) if len(hashes) == 1 else [f"{one} with {engine}" for engine, one in hashes.items()]
    kind = shown_variant(variant(spec), fusion=fusion_parts(spec))
    return f"name {spec.name}, variant {kind}, hash {' or '.join(which)}"


def _leaves(part: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in part.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _shown(value: Any) -> str:
    """A value as YAML would have it, in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if value != "" else "''"
