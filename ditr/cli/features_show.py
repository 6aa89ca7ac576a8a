"""``ditr features show``: one frame's 2D features as colours, on its image and on its points."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditr.cli.display import open_display
from ditr.cli.options import Overrides
from ditr.cli.spec_files import SpecFile
from ditr.errors import Code, DitrError
from ditr.spec.load import load_spec
from ditr.spec.models import FeatureSpec
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.data.frame_view import FrameView
    from ditr.features.map_view import MapFacts


def register(group: typer.Typer) -> None:
    """Adds the command to the group of ``ditr features``."""
    group.command("show")(show)


def show(
    spec: SpecFile,
    frame: Annotated[
        str,
        typer.Argument(
            metavar="FRAME", help="Frame id of the spec's data set, such as scene0012_00_200.", show_default=False
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="PNG to write; default is features_FRAME.png here.")] = None,
    overrides: Overrides = None,
) -> None:
    """Draw a frame's 2D features as colours: the map on the image, and what the points read of it."""
    from ditr.data.dataset import open_dataset
    from ditr.features.map_view import view_of_map
    from ditr.report.frame_pictures import draw_features
    from ditr.rooms import make_missing

    registry = Registry()
    loaded = load_spec(spec, registry=registry, overrides=overrides or ()).spec
    if loaded.features is None:
        raise DitrError(
            "the spec has no 2D features to draw",
            code=Code.SPEC,
            where=str(spec),
            fix="name a spec with `features`, or give it some, such as --set features.source=vit_mini14_reg4",
        )
    with open_display() as display:
        make_missing(loaded.dataset.name, registry=registry, progress=display.progress)
        dataset = open_dataset(loaded.dataset.name, registry=registry)
        frames, index = dataset.find(frame)
        entry = registry.features(loaded.features.source)
        view, facts = view_of_map(frames, index, spec=loaded.features, entry=entry, dataset=dataset)
        title, lines = f"{frame}: 2D features of {loaded.features.source}", _lines(view, facts, loaded.features)
        path = out or Path(f"features_{frame}.png")
        draw_features(view, title=title, caption="\n".join(lines), path=path)
        display.say("\n".join((title, *lines, str(path))))


def _lines(view: FrameView, facts: MapFacts, spec: FeatureSpec) -> tuple[str, str, str]:
    """Where the map came from, what the colours leave out, how many points read it."""
    where = "computed now on the CPU and not kept" if facts.stored_at is None else f"stored in {facts.stored_at}"
    shares = [100 * share for share in facts.explained]
    parts = " + ".join(f"{share:.1f}" for share in shares)
    valid = view.uv_valid
    how = f"have a pixel and read the map there ({spec.sampling})"
    if view.features is not None and view.features.covers_hw is None:
        how = "have a pixel; each point reads its own feature"
    return (
        f"map: {' x '.join(map(str, facts.shape))}, {where}",
        f"colours: three principal components of this map alone, {parts} = {sum(shares):.1f} % of its variance",
        f"points: {100 * valid.mean():.1f} % of {len(valid):,} {how}",
    )
