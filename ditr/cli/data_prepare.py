"""``ditr data prepare | pack``: a data set's folder from ScanNet's raw files, and its info pickles."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditr.catalog import locate_dataset
from ditr.cli.display import open_display
from ditr.errors import Code, DitrError, ExitCode
from ditr.spec.entries import FolderEntry
from ditr.spec.numbers import MOST_PROCESSES, MOST_SEED
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.scannet.manifest import PrepareSettings
    from ditr.scannet.pack import PackedSplit
    from ditr.scannet.prepare import Preparation

_SHOWN = 20


class Superpoints(StrEnum):
    """Where superpoints come from."""

    MASKS = "masks"
    OVERSEGMENTATION = "oversegmentation"


class CameraChoice(StrEnum):
    """Which intrinsics back-project the depth."""

    AVERAGE = "average"
    SCENE = "scene"


def register(group: typer.Typer) -> None:
    """Adds the commands to ``ditr data``."""
    group.command("prepare")(prepare)
    group.command("pack")(pack)


def prepare(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A folder data set of registry/datasets.", show_default=False)
    ],
    source: Annotated[
        Path | None,
        typer.Option(help="Folder with ScanNet's 2D, 3D and meta_data; default is the data set's own.", metavar="DIR"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to prepare; default is the data set's own.", metavar="DIR")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Decides which pixels become points.")] = 0,
    superpoints: Annotated[
        Superpoints, typer.Option(help="Label images of a segmenter, or an over-segmentation made here.")
    ] = Superpoints.MASKS,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder of SCENE/FRAME.png, 8 or 16 bit, 0 = no mask; default is masks of --source.", metavar="DIR"
        ),
    ] = None,
    intrinsics: Annotated[
        CameraChoice, typer.Option(help="ESAM's average for every scan, or each scan's own depth camera.")
    ] = CameraChoice.AVERAGE,
    workers: Annotated[
        int | None, typer.Option(min=1, max=MOST_PROCESSES, help="Processes; default is one a core.")
    ] = None,
) -> None:
    """Make points, superpoints, labels and info pickles of the listed frames; goes on where it was interrupted.

    Exit code 1 if a frame failed: it is listed, and left out of the info pickles.
    """
    from ditr.scannet.prepare import prepare as prepare_frames

    entry = _folder_entry(name)
    own = locate_dataset(name, entry)
    raw, prepared = (own if folder is None else folder.resolve() for folder in (source, out))
    settings = _settings(entry, raw, seed=seed, superpoints=superpoints, masks=masks, intrinsics=intrinsics)
    with open_display() as display:
        done = prepare_frames(
            raw,
            prepared,
            settings=settings,
            info_files={str(split): file for split, file in entry.infos.items()},
            workers=workers or len(os.sched_getaffinity(0)),
            progress=display.progress,
        )
        display.say(f"{prepared}\n{_written(done)}")
    if done.failed:
        raise typer.Exit(ExitCode.FAILED)


def pack(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A prepared folder.", show_default=False)],
    features: Annotated[
        bool, typer.Option("--features", help="Also write the _clip.pkl files, which name each frame's feature map.")
    ] = False,
    features_template: Annotated[
        str | None,
        typer.Option(
            help="Path of a feature map below FOLDER; default `clip_feat/{scene}/{frame}.pt`.", metavar="TEMPLATE"
        ),
    ] = None,
    image_root: Annotated[
        str,
        typer.Option(
            help="Put before image paths, such as `./data/scannet200-sv`: ESAM opens them from its own folder.",
            metavar="DIR",
        ),
    ] = "",
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out listed frames that lack a file, instead of refusing.")
    ] = False,
) -> None:
    """Write the info pickles of a prepared folder from its files and the lists in its meta_data."""
    from ditr.scannet.pack import FEATURES_TEMPLATE
    from ditr.scannet.pack import pack as pack_folder

    if features_template is not None and not features:
        raise typer.BadParameter("it is used with --features only", param_hint="--features-template")
    template = (features_template or FEATURES_TEMPLATE) if features else None
    with open_display() as display:
        splits = pack_folder(
            folder.resolve(),
            features=template,
            image_root=image_root,
            skip_missing=skip_missing,
            progress=display.progress,
        )
        display.say(_packed(splits))


def _folder_entry(name: str) -> FolderEntry:
    entry = Registry().dataset(name)
    if not isinstance(entry, FolderEntry):
        raise DitrError(
            f"data set {name!r} is embedded, it needs no preparation",
            code=Code.DATASET,
            fix=f"`ditr data make {name}` makes it",
        )
    return entry


def _settings(
    entry: FolderEntry,
    source: Path,
    *,
    seed: int,
    superpoints: Superpoints,
    masks: Path | None,
    intrinsics: CameraChoice,
) -> PrepareSettings:
    from ditr.geometry.camera import Intrinsics
    from ditr.scannet.manifest import PrepareSettings

    if superpoints is Superpoints.OVERSEGMENTATION and masks is not None:
        raise typer.BadParameter("an over-segmentation uses no masks", param_hint="--masks")
    folder = (masks or source / "masks") if superpoints is Superpoints.MASKS else None
    if folder is not None and not folder.is_dir():
        raise DitrError(
            "no folder of mask images",
            code=Code.DATASET,
            where=str(folder),
            fix="name it with --masks, or choose --superpoints oversegmentation",
        )
    return PrepareSettings(
        seed=seed,
        superpoints=superpoints.value,
        masks=folder,
        intrinsics=intrinsics.value,
        camera=Intrinsics(**entry.intrinsics.model_dump()),
    )


def _written(done: Preparation) -> str:
    lines = [f"frames: {done.made} made, {done.kept} kept, {len(done.skipped)} skipped, {len(done.failed)} failed"]
    lines += [f"  skipped {count}: {why}" for why, count in sorted(Counter(done.skipped.values()).items())]
    lines += [f"  failed {frame}: {why}" for frame, why in list(done.failed.items())[:_SHOWN]]
    if len(done.failed) > _SHOWN:
        lines.append(f"  and {len(done.failed) - _SHOWN} more, in prepared.json")
    return "\n".join([*lines, _packed(done.splits)])


def _packed(splits: Mapping[str, PackedSplit]) -> str:
    lines = []
    for split, packed in splits.items():
        lines.append(
            f"{split}: {packed.frames} frames in {packed.path.name}, left out of the list: {len(packed.lacking)}"
        )
        if packed.unaligned_scenes:
            lines.append(f"  {packed.unaligned_scenes} scenes have no text file in 3D: identity as alignment")
        if packed.features_path is not None:
            lines.append(
                f"  {packed.features_path.name} names {packed.features_named} feature maps, "
                f"{packed.features_there} of them are there"
            )
    return "\n".join(lines)
