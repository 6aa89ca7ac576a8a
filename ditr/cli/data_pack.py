"""``ditr data pack``: the info pickles of a folder that ESAM's scripts or ``ditr data import scannet`` prepared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditr.cli.display import open_display

if TYPE_CHECKING:
    from ditr.data.scannet_sv import Split
    from ditr.scannet.pack import PackedSplit


def register(group: typer.Typer) -> None:
    """Adds the command to ``ditr data``."""
    group.command("pack")(pack)


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
        display.say(packed(splits))


def packed(splits: Mapping[Split, PackedSplit]) -> str:
    """Lines about what was written, and what was left out."""
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
