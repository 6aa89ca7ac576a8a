"""``ditr features extract | ls | rm``: stored 2D feature maps; see also ``check`` and ``features_show``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ditr.cli import features_show
from ditr.cli.display import Display, open_display
from ditr.cli.options import Overrides
from ditr.cli.spec_files import SpecFiles
from ditr.cli.specs import load_specs
from ditr.cli.tables import text_table
from ditr.errors import Code, DitrError
from ditr.runner.execution import torch_device
from ditr.spec.models import FeatureSpec, Spec
from ditr.spec.problems import shown_path
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.features.extract import Extraction
    from ditr.features.stored_maps import StoredMaps

GIB = 2**30

group = typer.Typer(no_args_is_help=True, help="Make, check, look at and delete 2D feature maps.")


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    group.command("extract")(extract)
    group.command("ls")(list_stores)
    group.command("rm")(remove)
    features_show.register(group)
    app.add_typer(group, name="features")


def extract(
    specs: SpecFiles,
    overrides: Overrides = None,
) -> None:
    """Make the feature maps of specs now; runs make theirs when they first need them.

    Of every frame of train and val. What is there stays; Ctrl-C or a kill loses nothing that was made.
    """
    registry = Registry()
    loaded = load_specs(specs, registry=registry, overrides=overrides)
    with open_display() as display:
        for each in loaded:
            display.say(shown_path(each.path))
            _extract(each.spec, registry=registry, display=display)


def list_stores() -> None:
    """List the feature maps that the cache holds."""
    from ditr.features.stored_maps import stores

    found = stores()
    columns = ("name", "data set", "source", "size", "layers", "computed in", "maps", "of", "GiB", "state")
    typer.echo(
        text_table(columns, [_row(store) for store in found]) if found else "no feature maps in the cache\n", nl=False
    )


def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="As `ls` prints it.", show_default=False)],
) -> None:
    """Delete feature maps; whoever needs them again makes them again."""
    from ditr.features.stored_maps import delete, stores

    known = {store.name: store for store in stores()}
    for unknown in (name for name in names if name not in known):
        raise _no_store(unknown, list(known))
    for store in dict.fromkeys(names):
        delete(known[store])
        typer.echo(f"deleted {store}: {known[store].maps} maps, {known[store].bytes / GIB:.3g} GiB")


def _extract(spec: Spec, *, registry: Registry, display: Display) -> None:
    from ditr.data_check.screening import open_screened
    from ditr.features.extract import extract as extract_maps

    if not spec.fusion.parts:
        display.say("  has no fusion: its runs read no 2D features")
    if spec.features is None:
        display.say("  has no features: nothing to make")
        return
    if spec.features.mode == "online":
        display.say("  computes its 2D features in every step (features.mode: online): nothing to make")
        return
    device = torch_device(spec.execution)
    dataset = open_screened(spec.dataset, registry=registry, progress=display.progress).dataset
    made = extract_maps(
        tuple(dataset.splits.values()),
        spec=spec.features,
        entry=registry.features(spec.features.source),
        dataset=dataset,
        device=device,
        progress=display.progress,
        say=display.say,
    )
    display.say(_summary(made, features=spec.features))


def _summary(extraction: Extraction, *, features: FeatureSpec) -> str:
    lines = [f"  {extraction.folder}"]
    lines.append(f"  {extraction.made} maps of {features.source} made, {extraction.present} were there")
    if extraction.made:
        rate = extraction.made / extraction.seconds
        lines.append(f"  {extraction.seconds:.1f} s, {rate:.3g} images/s, {extraction.bytes / GIB:.3g} GiB written")
    return "\n".join(lines)


def _row(store: StoredMaps) -> tuple[object, ...]:
    about = store.manifest or {}
    size = "x".join(map(str, about.get("input_size", ()))) or None
    layers = " ".join(map(str, about.get("layers", ()))) or None
    state = "complete" if store.complete else "not begun" if not store.maps else "partial"
    facts = (about.get("dataset"), about.get("source"), size, layers, about.get("computed_in"))
    return (store.name, *facts, store.maps, store.frames, store.bytes / GIB, state)


def _no_store(name: str, known: Sequence[str]) -> DitrError:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
    fix = f"use a name of `ditr features ls`{', such as ' + ', '.join(close) if close else ''}"
    return DitrError(f"the cache has no feature maps {name!r}", code=Code.FEATURES, where="", fix=fix)
