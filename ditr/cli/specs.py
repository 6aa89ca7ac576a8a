"""Spec files as commands take several of them: ``specs/*.yaml`` may name bases too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from ditr.spec.load import LoadedSpec, check_base, load_all
from ditr.spec.problems import Problem, SpecErrors, shown_path
from ditr.spec.registry import Registry, entries_of


def load_specs(
    files: Sequence[Path],
    *,
    registry: Registry,
    overrides: Sequence[str] | None,
    loaded: Callable[[LoadedSpec], None] = lambda _: None,
) -> list[LoadedSpec]:
    """Every spec in its order, all those of a sweep; a base, whose name starts with `_`, is checked, told and left out.

    ``loaded`` is called for each as soon as it is found sound. Raises ``SpecErrors`` with the mistakes of all of them.
    """
    specs: list[LoadedSpec] = []
    problems: list[Problem] = []
    for file in files:
        try:
            if file.name.startswith("_"):
                check_base(file)
                typer.echo(f"{shown_path(file)}: a base, skipped as a spec; its keys and values are fine")
            else:
                for spec in load_all(file, registry=registry, overrides=overrides or ()):
                    loaded(spec)
                    specs.append(spec)
        except SpecErrors as error:
            problems.extend(error.problems)
    if problems:
        raise SpecErrors(problems)
    _tell_hidden(specs, registry)
    return specs


def _tell_hidden(specs: Sequence[LoadedSpec], registry: Registry) -> None:
    """Which entries of the project stand in place of built-in ones that these specs would else have named."""
    for kind, name in dict.fromkeys(entry for loaded in specs for entry in entries_of(loaded.spec)):
        if registry.hidden(kind, name):
            typer.echo(f"{name}: {shown_path(registry.file(kind, name))}, in place of the built-in entry", err=True)
