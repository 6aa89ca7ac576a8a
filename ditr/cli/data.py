"""``ditr data make | check | show | ls``: data sets by name or folder; other commands have modules of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditr.catalog import locate_dataset
from ditr.cli import data_import, data_pack, data_remove
from ditr.cli.data_check_report import check_and_say
from ditr.cli.display import Display, open_display
from ditr.cli.tables import text_table
from ditr.errors import Code, DitrError, ExitCode
from ditr.spec.entries import SplitEntry, SynthRoomsEntry
from ditr.spec.numbers import MOST, MOST_SCENES, MOST_SEED
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.data.dataset import Dataset, Report

DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="A name from registry/datasets, or a folder.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Make, check and look at data sets.")
    group.command("make")(make)
    group.command("check")(check)
    group.command("show")(show)
    group.command("ls")(list_datasets)
    data_import.register(group)
    data_pack.register(group)
    data_remove.register(group)
    app.add_typer(group, name="data")


def make(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="An embedded data set of registry/datasets.", show_default=False)
    ],
    scenes: Annotated[
        int | None,
        typer.Option(min=2, max=MOST_SCENES, help="Rooms in all; a quarter of them, at least one, is for val."),
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, max=MOST, help="Frames a room.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=MOST_SEED, help="Another seed gives other rooms.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make it in; default is the cache.")] = None,
) -> None:
    """Make an embedded data set now; runs make theirs when they first need it."""
    from ditr.data.dataset import open_folder
    from ditr.rooms import make_once

    entry = _changed(_embedded(name), scenes=scenes, frames=frames, seed=seed)
    root = locate_dataset(name, entry) if out is None else out.resolve()
    if out is not None and root.exists():
        raise DitrError("the folder already exists", code=Code.DATASET, where=str(root), fix="name a new folder")
    with open_display() as display:
        make_once(entry, root, progress=display.progress)
        dataset = open_folder(root, name=name)
        display.say(f"{root}")
        display.say(f"train {len(dataset.train)} frames, val {len(dataset.val)} frames, digest {dataset.digest}")


def check(dataset: DatasetArgument) -> None:
    """Read every file of a data set; list what is wrong with it and what is in it. Exit code 1 if anything is wrong."""
    opening: list[tuple[str, str]] = []
    with open_display() as display:
        opened = _open(dataset, display, report=lambda kind, text: opening.append((kind, text)))
        report = check_and_say(opened, display, opening=opening)
    if not report.sound:
        raise typer.Exit(ExitCode.FAILED)


def show(
    dataset: DatasetArgument,
    frame: Annotated[
        str, typer.Argument(metavar="FRAME", help="Frame id, such as scene0012_00_200.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option(help="PNG to write; default is FRAME.png here.")] = None,
) -> None:
    """Draw a frame: colour, depth, instances, superpoints, points."""
    from ditr.data.frame_view import instance_names, view_of
    from ditr.report.frame_pictures import draw_data

    with open_display() as display:
        opened = _open(dataset, display)
        frames, index = opened.find(frame)
        path = out or Path(f"{frame}.png")
        view, names = view_of(frames, index), instance_names(frames.frame(index))
        draw_data(view, names=names, depth_m=frames.depth_m(index), path=path)
        display.say(str(path))


def list_datasets() -> None:
    """List the data sets of the registry and whether they are here."""
    registry = Registry()
    rows = []
    for name in registry.names("datasets"):
        entry = registry.dataset(name)
        root = locate_dataset(name, entry)
        if isinstance(entry, SynthRoomsEntry):
            size = f"{entry.train.scenes}x{entry.train.frames} + {entry.val.scenes}x{entry.val.frames}"
            state = "made" if root.is_dir() else "made on first use"
        else:
            size, state = _imported_size(root), "here" if root.is_dir() else "missing"
        rows.append((name, entry.kind, size, state, str(root)))
    typer.echo(text_table(("name", "kind", "scenes x frames", "state", "folder"), rows), nl=False)


def _imported_size(root: Path) -> str:
    """Frames of each scene, as an import left them; not of other folders, whose pickles may be large."""
    from ditr.captures.manifest import frames_of_scenes

    counts = frames_of_scenes(root)
    if not counts:
        return "-"
    least, most = min(counts.values()), max(counts.values())
    return f"{len(counts)}x{least}" if least == most else f"{len(counts)}x{least} to {most}"


def _embedded(name: str) -> SynthRoomsEntry:
    entry = Registry().dataset(name)
    if not isinstance(entry, SynthRoomsEntry):
        raise DitrError(
            f"data set {name!r} is a folder that you bring, it cannot be made",
            code=Code.DATASET,
            where=str(locate_dataset(name, entry)),
            fix="`ditr data ls` lists the embedded ones",
        )
    return entry


def _changed(entry: SynthRoomsEntry, *, scenes: int | None, frames: int | None, seed: int | None) -> SynthRoomsEntry:
    train, val = entry.train.scenes, entry.val.scenes
    if scenes is not None:
        val = max(1, scenes // 4)
        train = scenes - val
    return entry.model_copy(
        update={
            "seed": entry.seed if seed is None else seed,
            "train": SplitEntry(scenes=train, frames=frames or entry.train.frames),
            "val": SplitEntry(scenes=val, frames=frames or entry.val.frames),
        }
    )


def _open(dataset: str, display: Display, report: Report | None = None) -> Dataset:
    from ditr.data.dataset import open_dataset, open_folder
    from ditr.rooms import make_missing

    registry = Registry()
    folder = Path(dataset)
    if dataset not in registry.names("datasets") and folder.is_dir():
        return open_folder(folder.resolve(), name=folder.name, report=report)
    if len(folder.parts) > 1 or dataset.startswith("."):
        fix = "Name a folder that is there, or a data set of `ditr data ls`."
        raise DitrError("no such folder", code=Code.DATASET, where=dataset, fix=fix)
    make_missing(dataset, registry=registry, progress=display.progress)
    return open_dataset(dataset, registry=registry, report=report)
