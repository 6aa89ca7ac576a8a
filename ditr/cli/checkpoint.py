"""``ditr checkpoint inspect | ls``: what a weight file is and holds, and the weights of the registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditr.catalog import locate_checkpoint
from ditr.cli.tables import text_table
from ditr.errors import DitrError
from ditr.spec.models import RegisteredCheckpoint
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.weights.description import Description

_FIRST = 8


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Look at weight files.")
    group.command("inspect")(inspect)
    group.command("ls")(list_checkpoints)
    app.add_typer(group, name="checkpoint")


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pth, .ckpt or .safetensors file.")],
    shapes: Annotated[bool, typer.Option("--shapes", help="List every entry with its shape.")] = False,
) -> None:
    """Say what a weight file is, and what to write into a spec to use it. Nothing in the file is run."""
    from ditr.weights.description import describe

    described = describe(file)
    lines = [*_what(described), *_registry(described, Registry()), *_groups(described), *_rest(described)]
    lines += [*_shapes(described, every=shapes), *_use(described)]
    typer.echo("\n".join(lines))


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


def _what(described: Description) -> Iterator[str]:
    container = f"{described.container} file" + (", weights under state_dict" if described.nested else "")
    yield f"{described.path}"
    yield f"  what      {described.format or 'none of mask3d, esam, ditr'}: {described.reason}"
    yield f"  file      {container}, {described.size_bytes / 1e6:.1f} MB, sha256 {described.sha256}"
    if described.key_prefix:
        yield f"  prefix    '{described.key_prefix}' stands before the backbone's names"
    if described.backbone:
        found = described.backbone
        size = f"planes {_list(found.spec.planes)}, layers {_list(found.spec.layers)}, stem {found.spec.stem_channels}"
        yield f"  backbone  Res16UNet, {size}; {found.entries} of its {found.expected} entries are here"
    if described.foreign_kernels:
        yield f"  kernels   in another layout than MinkowskiEngine's: {described.foreign_kernels}"
    yield from (f"  fusion    {part}" for part in described.fusion)
    if described.bookkeeping:
        yield "  says      " + ", ".join(f"{name} {value}" for name, value in described.bookkeeping.items())


def _registry(described: Description, registry: Registry) -> Iterator[str]:
    """The entry that pins this file; else the entries that weights of this kind and size would fit."""
    entries = {name: registry.checkpoint(name) for name in registry.names("checkpoints")}
    same = [name for name, entry in entries.items() if entry.sha256 == described.sha256]
    if same:
        yield f"  registry  this is {', '.join(same)}, by its sha256"
        return
    found = described.backbone
    fitting = [
        f"{name} ({'which pins another sha256' if entry.sha256 else 'which pins no sha256'})"
        for name, entry in entries.items()
        if found
        and found.entries == found.expected
        and (entry.format, entry.backbone) == (described.format, found.spec)
    ]
    fits = f"; its shapes would fit {', '.join(fitting)}" if fitting else ""
    yield f"  registry  no entry pins this sha256{fits}"


def _groups(described: Description) -> Iterator[str]:
    rows = [
        (group.group, group.entries, f"{group.parameters:>12,}", _counted(group.parts)) for group in described.groups
    ]
    if rows:
        total = sum(group.parameters for group in described.groups)
        rows.append(("in all", len(described.shapes), f"{total:>12,}", _counted(described.precisions)))
        yield "\n" + text_table(("group", "entries", "parameters", ""), rows).rstrip("\n")


def _rest(described: Description) -> Iterator[str]:
    if described.not_finite:
        first = ", ".join(described.not_finite[:_FIRST])
        yield f"\nNOT FINITE: {len(described.not_finite)} entries hold NaN or infinite values: {first}"
    if described.contents:
        yield "\nbeside the weights"
        yield from (f"  {name}: {value}" for name, value in described.contents.items())
    if described.inert:
        yield "\nobjects left out, none of their code was run"
        yield from (f"  {name}" for name in described.inert)


def _shapes(described: Description, *, every: bool) -> Iterator[str]:
    shapes = list(described.shapes.items())
    shown = shapes if every else shapes[:_FIRST]
    if shown:
        rows = [(name, "x".join(map(str, shape)) or "scalar") for name, shape in shown]
        yield "\n" + text_table(("entry", "shape"), rows).rstrip("\n")
    if len(shown) < len(shapes):
        yield f"and {len(shapes) - len(shown)} more, with --shapes"


def _use(described: Description) -> Iterator[str]:
    if described.format is None or described.backbone is None:
        return
    found = described.backbone
    yield "\nin a spec"
    yield "  checkpoint:"
    yield f"    kind: file\n    path: {described.path.resolve()}\n    format: {described.format}"
    if described.key_prefix:
        yield f'    key_prefix: "{described.key_prefix}"'
    yield "  model:\n    backbone:"
    yield f"      planes: {_list(found.spec.planes)}\n      layers: {_list(found.spec.layers)}"
    yield f"      stem_channels: {found.spec.stem_channels}"


def _list(numbers: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, numbers))}]"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
