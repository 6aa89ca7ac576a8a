"""``ditr checkpoint inspect | ls``: what a weight file is and holds, and the weights of the registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditr.catalog import locate_checkpoint, pinning_entries
from ditr.cli.tables import text_table
from ditr.cli.weight_files import find_weights
from ditr.errors import DitrError
from ditr.spec.models import BackboneSpec, RegisteredCheckpoint
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.weights.description import Description


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Look at weight files.")
    group.command("inspect")(inspect)
    group.command("ls")(list_checkpoints)
    app.add_typer(group, name="checkpoint")


def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A .pth, .ckpt or .safetensors file, or a name of `ditr checkpoint ls`.",
            parser=find_weights,
        ),
    ],
) -> None:
    """Say what a weight file is, and what to write into a spec to use it. Nothing in the file is run."""
    from ditr.weights.description import describe

    described, registry = describe(file), Registry()
    lines = [*_what(described, registry), *_registry(described, registry), *_loading(described), *_groups(described)]
    typer.echo("\n".join([*lines, *_use(described)]))


def list_checkpoints() -> None:
    """List the weights of the registry and whether they are here."""
    registry, rows = Registry(), []
    for name in registry.names("checkpoints"):
        entry = registry.checkpoint(name)
        try:
            file = locate_checkpoint(RegisteredCheckpoint(kind="registry", name=name), registry=registry)
            state, place = "here", str(file.path)
        except DitrError as error:
            state, place = "missing" if error.where == entry.file else "another file", entry.url or error.where
        rows.append((name, entry.format, entry.entries, "pinned" if entry.sha256 else "not pinned", state, place))
    columns = ("name", "format", "entries", "sha256", "state", "file or where to get it")
    typer.echo(text_table(columns, rows), nl=False)


def _what(described: Description, registry: Registry) -> Iterator[str]:
    pinned = pinning_entries(described.sha256, registry=registry)
    unknown = "its pinned sha256" if pinned else "nothing in the file: pin its sha256, in a spec or the registry"
    yield f"{described.path}"
    yield f"  what      {described.format or 'none of mask3d, esam, ditr'}: {described.reason}"
    yield f"  file      {described.container} file, {described.size_bytes / 1e6:.1f} MB, sha256 {described.sha256}"
    yield f"  whole     by {described.checked or unknown}"
    if described.key_prefix:
        yield f"  prefix    '{described.key_prefix}' stands before the backbone's names"
    if described.backbone:
        yield f"  backbone  Res16UNet, {', '.join(f'{name} {value}' for name, value in _sizes(described.backbone))}"
    yield from (f"  fusion    {part}" for part in described.fusion)


def _registry(described: Description, registry: Registry) -> Iterator[str]:
    """The entry that pins this file; else the entries that weights of this kind and size would fit."""
    same = pinning_entries(described.sha256, registry=registry)
    if same:
        yield f"  registry  this is {', '.join(same)}, by its sha256"
        return
    entries = {name: registry.checkpoint(name) for name in registry.names("checkpoints")}
    fitting = [
        f"{name} ({'which pins another sha256' if entry.sha256 else 'which pins no sha256'})"
        for name, entry in entries.items()
        if not described.refusal and (entry.format, entry.backbone) == (described.format, described.backbone)
    ]
    fits = f"; its shapes would fit {', '.join(fitting)}" if fitting else ""
    yield f"  registry  no entry pins this sha256{fits}"


def _loading(described: Description) -> Iterator[str]:
    if described.not_finite:
        yield f"  loading   refused: {len(described.not_finite)} entries hold NaN or infinite values, such as "
        yield f"            {described.not_finite[0]}"
    elif described.refusal:
        yield f"  loading   refused: {described.refusal.what}"
        yield f"            {described.refusal.fix}"
    elif described.format:
        fresh = "; pool and decoder start fresh" if described.format == "mask3d" else ""
        yield f"  loading   every entry of the backbone is there, in its shape{fresh}"


def _groups(described: Description) -> Iterator[str]:
    rows = [(one.group, one.entries, f"{one.parameters:>12,}") for one in described.groups]
    if rows:
        entries, parameters = (
            sum(getattr(one, part) for one in described.groups) for part in ("entries", "parameters")
        )
        rows.append(("in all", entries, f"{parameters:>12,}"))
        yield "\n" + text_table(("group", "entries", "parameters"), rows).rstrip("\n")


def _use(described: Description) -> Iterator[str]:
    if described.format is None or described.backbone is None or described.refusal:
        return
    yield "\nin a spec"
    yield "  checkpoint:"
    yield f"    kind: file\n    path: {described.path.resolve()}\n    format: {described.format}"
    if described.key_prefix:
        yield f'    key_prefix: "{described.key_prefix}"'
    yield f"    sha256: {described.sha256}"
    yield "  model:\n    backbone:"
    yield from (f"      {name}: {value}" for name, value in _sizes(described.backbone))


def _sizes(backbone: BackboneSpec) -> tuple[tuple[str, object], ...]:
    return (
        ("planes", list(backbone.planes)),
        ("layers", list(backbone.layers)),
        ("stem_channels", backbone.stem_channels),
    )
