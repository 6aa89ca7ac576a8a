"""``ditr data import``: a data set of captures in known formats, which every command then knows by its name."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from ditr import paths
from ditr.catalog import locate_dataset
from ditr.cli.data_check_report import check_and_say
from ditr.cli.data_pack import packed
from ditr.cli.display import Display, open_display
from ditr.errors import Code, DitrError, ExitCode
from ditr.files import write_text
from ditr.spec.dump import to_yaml
from ditr.spec.entries import FolderEntry, IntrinsicsEntry
from ditr.spec.numbers import MOST, MOST_PROCESSES, MOST_SEED
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.captures.importing import Imported
    from ditr.captures.prepare import Preparation
    from ditr.data.dataset import Dataset
    from ditr.data.scannet_sv import Split
    from ditr.geometry.camera import Intrinsics

_SHOWN = 20


class CaptureFormat(StrEnum):
    """What can be imported; all but ScanNet by the readers of ``ditr.captures.formats``, which a test compares."""

    SCANNET = "scannet"
    TUM = "tum"
    RECORD3D = "record3d"
    REPLICA = "replica"
    ARKITSCENES = "arkitscenes"
    RGBD = "rgbd"
    ESAM = "esam"


class Superpoints(StrEnum):
    """Where superpoints come from."""

    MASKS = "masks"
    OVERSEGMENTATION = "oversegmentation"


class CameraChoice(StrEnum):
    """Which intrinsics back-project ScanNet's depth."""

    AVERAGE = "average"
    SCENE = "scene"


def register(group: typer.Typer) -> None:
    """Adds the command to ``ditr data``."""
    group.command("import")(import_capture)


def import_capture(
    format: Annotated[
        CaptureFormat, typer.Argument(metavar="FORMAT", help="One of: " + ", ".join(CaptureFormat), show_default=False)
    ],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="A capture, or captures in its folders; of ScanNet its 2D, 3D and meta_data."
        ),
    ],
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What every command calls the data set then.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to prepare; default is the data set's own, or NAME below DITR_DATA.", metavar="DIR"),
    ] = None,
    every: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="Take one of so many frames.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Decides which pixels become points.")] = 0,
    superpoints: Annotated[
        Superpoints | None,
        typer.Option(
            help="Label images of a segmenter, as by default of ScanNet and with --masks; or an over-segmentation.",
            show_default=False,
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder of SCENE/FRAME.png, 8 or 16 bit, 0 = no mask; default is masks of FOLDER.", metavar="DIR"
        ),
    ] = None,
    intrinsics: Annotated[
        CameraChoice | None,
        typer.Option(
            help="Of ScanNet: ESAM's average for every scan, as by default, or each scan's own depth camera.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=MOST_PROCESSES, help="Processes; default is one a core.")
    ] = None,
) -> None:
    """Make a data set of a capture, and check it; goes on where it was interrupted.

    Exit code 1 if a frame failed, which is listed and left out, or the check finds something wrong.
    """
    source = folder.resolve()
    label_images = _masks(source, format=format, superpoints=superpoints, masks=masks)
    request = _Request(
        source=source,
        name=name,
        out=out,
        seed=seed,
        masks=label_images,
        workers=workers or len(os.sched_getaffinity(0)),
    )
    with open_display() as display:
        if format is CaptureFormat.SCANNET:
            if every is not None:
                raise typer.BadParameter("ScanNet's lists say which frames are taken", param_hint="--every")
            failed = _import_scans(request, intrinsics or CameraChoice.AVERAGE, display)
        else:
            if intrinsics is not None:
                raise typer.BadParameter("it is of ScanNet only", param_hint="--intrinsics")
            failed = _import_capture(request, format, every or 1, display)
        display.say("")
        report = check_and_say(_opened(name, out), display)
    if failed or not report.sound:
        raise typer.Exit(ExitCode.FAILED)


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What was asked for, whatever the format."""

    source: Path
    name: str
    out: Path | None
    seed: int
    masks: Path | None
    workers: int

    def entry(self) -> FolderEntry | None:
        """That of the registry; DitrError if it is one of an embedded set."""
        if not _is_name(self.name):
            what, fix = f"{self.name!r} is no name of a data set", "use letters, digits, _ and -"
            raise DitrError(what, code=Code.DATASET, where="NAME", fix=fix)
        registry = Registry()
        if self.name not in registry.names("datasets"):
            return None
        entry = registry.dataset(self.name)
        if isinstance(entry, FolderEntry):
            return entry
        what, fix = f"{self.name!r} is an embedded data set", "choose another name"
        raise DitrError(what, code=Code.DATASET, where=str(registry.file("datasets", self.name)), fix=fix)

    def folder(self, entry: FolderEntry | None) -> Path:
        """Where the frames are prepared."""
        if self.out is not None:
            return self.out.resolve()
        return paths.data_dir() / self.name if entry is None else locate_dataset(self.name, entry)

    def write_entry(self, infos: Mapping[Split, str], camera: Intrinsics, *, format: CaptureFormat) -> Path:
        """The new entry's file, in the project's registry."""
        entry = FolderEntry(
            kind="folder",
            imported=True,
            description=f"Imported from {self.source.name}, of the format {format}.",
            path=self.name if self.out is None else str(self.out.resolve()),
            infos=dict(infos),
            intrinsics=IntrinsicsEntry(**dataclasses.asdict(camera)),
        )
        return self._write(entry)

    def follow(self, entry: FolderEntry, camera: Intrinsics) -> None:
        """The entry of an earlier import says the camera that the capture has now."""
        intrinsics = IntrinsicsEntry(**dataclasses.asdict(camera))
        if entry.imported and self.out is None and entry.intrinsics != intrinsics:
            self._write(entry.model_copy(update={"intrinsics": intrinsics}))

    def _write(self, entry: FolderEntry) -> Path:
        file = paths.registry_dirs()[0] / "datasets" / f"{self.name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, to_yaml(entry))
        return file


def _is_name(text: str) -> bool:
    """Whether an entry's file may be called so."""
    return re.fullmatch(r"\w[\w-]*", text) is not None


def _import_scans(request: _Request, choice: CameraChoice, display: Display) -> bool:
    """Whether a frame failed."""
    from ditr.data.scannet_sv import INFO_FILES
    from ditr.geometry.camera import SCANNET_SV_INTRINSICS, Intrinsics
    from ditr.scannet.prepare import ScanNetSettings, prepare_scans

    entry = request.entry()
    prepared = request.folder(entry)
    camera = SCANNET_SV_INTRINSICS if entry is None else Intrinsics(**entry.intrinsics.model_dump())
    settings = ScanNetSettings(
        seed=request.seed,
        superpoints="oversegmentation" if request.masks is None else "masks",
        masks=request.masks,
        intrinsics=choice.value,
        camera=camera,
    )
    infos = INFO_FILES if entry is None else entry.infos
    done, splits = prepare_scans(
        request.source,
        prepared,
        settings=settings,
        info_files=infos,
        workers=request.workers,
        progress=display.progress,
    )
    display.say(f"{prepared}\n{_written(done)}\n{packed(splits)}")
    if entry is None:
        display.say(f"entry: {request.write_entry(infos, camera, format=CaptureFormat.SCANNET)}")
    return bool(done.failed)


def _import_capture(request: _Request, format: CaptureFormat, every: int, display: Display) -> bool:
    """Whether a frame failed."""
    from ditr.captures.formats import FORMATS
    from ditr.captures.importing import INFOS, import_capture
    from ditr.data.prepared import PREPARED

    entry = request.entry()
    prepared = request.folder(entry)
    if entry is not None and not entry.imported and not (prepared / PREPARED).is_file():
        what, fix = f"there is a data set {request.name!r} that was not imported", "choose another name"
        raise DitrError(what, code=Code.DATASET, where=str(prepared), fix=fix)
    imported = import_capture(
        request.source,
        prepared,
        format=FORMATS[format.value],
        seed=request.seed,
        every=every,
        masks=request.masks,
        workers=request.workers,
        progress=display.progress,
    )
    display.say(f"{prepared}\n{_written(imported.frames)}\n{_said_of(imported)}")
    if entry is None:
        display.say(f"entry: {request.write_entry({'val': INFOS}, imported.camera, format=format)}")
    else:
        request.follow(entry, imported.camera)
    return bool(imported.frames.failed)


def _masks(source: Path, *, format: CaptureFormat, superpoints: Superpoints | None, masks: Path | None) -> Path | None:
    """The folder of label images, or None for an over-segmentation; those of a capture are used where it has some."""
    if superpoints is Superpoints.OVERSEGMENTATION:
        if masks is not None:
            raise typer.BadParameter("an over-segmentation uses no masks", param_hint="--masks")
        return None
    folder = masks or source / "masks"
    asked = superpoints is Superpoints.MASKS or masks is not None or format is CaptureFormat.SCANNET
    if folder.is_dir():
        return folder.resolve()
    if not asked:
        return None
    raise DitrError(
        "no folder of mask images",
        code=Code.DATASET,
        where=str(folder),
        fix="name it with --masks, or choose --superpoints oversegmentation",
    )


def _opened(name: str, out: Path | None) -> Dataset:
    """What was imported; with ``--out`` it is another folder than the entry's."""
    from ditr.data.dataset import open_dataset, open_folder
    from ditr.geometry.camera import Intrinsics

    registry = Registry()
    entry = registry.dataset(name)
    assert isinstance(entry, FolderEntry), "what is imported is a folder"
    if out is None:
        return open_dataset(name, registry=registry)
    camera = Intrinsics(**entry.intrinsics.model_dump())
    return open_folder(out.resolve(), name=name, info_files=entry.infos, intrinsics=camera)


def _written(done: Preparation) -> str:
    counts = (len(done.made), len(done.kept), len(done.skipped), len(done.failed))
    lines = ["frames: {} made, {} kept, {} skipped, {} failed".format(*counts)]
    lines += [f"  made again {count}: {why}" for why, count in sorted(Counter(done.changed.values()).items())]
    lines += [f"  skipped {count}: {why}" for why, count in sorted(Counter(done.skipped.values()).items())]
    lines += [f"  failed {frame}: {why}" for frame, why in list(done.failed.items())[:_SHOWN]]
    if len(done.failed) > _SHOWN:
        lines.append(f"  and {len(done.failed) - _SHOWN} more, in prepared.json")
    if done.distance_m:
        of_each = [1000 * distance for distance in done.distance_m.values()]
        farthest = max(done.distance_m, key=lambda frame: done.distance_m[frame])
        lines.append(
            f"distance of frames to the mesh, medians of points: {median(of_each):.1f} mm or less in half of them, "
            f"from {min(of_each):.1f} to {max(of_each):.1f} mm in all, the most in {farthest}"
        )
    return "\n".join(lines)


def _said_of(imported: Imported) -> str:
    """Lines about what the frames are."""
    camera, frames = imported.camera, len(imported.frames.made) + len(imported.frames.kept)
    lines = [f"scenes: {', '.join(imported.scenes)}"]
    lines.append(
        f"camera: {camera.width}x{camera.height}, fx {camera.fx:.2f}, fy {camera.fy:.2f}, "
        f"cx {camera.cx:.2f}, cy {camera.cy:.2f}{', of the first scene' * (len(imported.scenes) > 1)}"
    )
    lines.append("superpoints: " + ("of masks" if imported.masks else "an over-segmentation, there are no masks"))
    if imported.posed < frames:
        lines.append(
            f"poses: none of {frames - imported.posed} frames, which stand in their own camera's frame, "
            "turned so that +z is up where the camera was level"
        )
    return "\n".join(lines)
