"""A plain folder of colour, depth and poses, and a ``capture.yaml`` that says what its numbers mean."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ditr.captures.capture import Format, scene_name
from ditr.captures.convention import Convention
from ditr.captures.images import COLOUR, image_size, require_images
from ditr.captures.one_camera import kept_camera, resized
from ditr.captures.raw_frame import PoseFile, RawFrame
from ditr.captures.scene import RawScene
from ditr.data.frame import FRAME_ID
from ditr.errors import Code, DitrError
from ditr.geometry.camera import Intrinsics
from ditr.spec.entries import IntrinsicsEntry
from ditr.spec.explain import check
from ditr.spec.numbers import Positive
from ditr.spec.part import Part
from ditr.spec.problems import SpecErrors
from ditr.spec.yaml_text import read_yaml

CAPTURE = "capture.yaml"


class CaptureFile(Part):
    """What a folder of colour and depth images does not say by itself."""

    depth_per_m: Positive
    """What the depth images say of one metre: 1000 where they are in millimetres, 5000 for TUM's, 1 for metres."""
    intrinsics: IntrinsicsEntry
    """Of the colour images."""
    depth_intrinsics: IntrinsicsEntry | None = None
    """Of the depth images, where they are no smaller or larger version of the colour images; both look the same way
    from the same place."""
    poses: Literal["camera_to_world", "world_to_camera"] = "camera_to_world"
    axes: Literal["opencv", "opengl"] = "opencv"
    """Of the camera: x right, y down, z forward, or OpenGL's x right, y up, z backward."""
    up: Literal["z", "y", "-y"] = "z"
    """Which axis of the world of the poses points up."""


def read(folder: Path) -> RawScene:
    """``color/<name>``, ``depth/<name>`` and, where there is such a folder, ``pose/<name>.txt``, in the order of names.

    Names that end with a number are ordered by it.

    Raises
    ------
    DitrError: ``capture.yaml`` has mistakes, an image has no depth or no pose, or the depth camera is not known.
    """
    said = _said(folder / CAPTURE)
    depth = {path.stem: path for path in (folder / "depth").glob("*") if not path.name.startswith(".")}
    colour = sorted((path for pattern in COLOUR for path in (folder / "color").glob(pattern)), key=_order)
    posed = (folder / "pose").is_dir()
    poses = {path.stem: path for path in (folder / "pose").glob("*.txt")}
    lacking = [path for path in colour if path.stem not in depth or (posed and path.stem not in poses)]
    fix = "export them under the same name, or take the image away; without poses leave out the folder pose"
    require_images(folder, colour=colour, lacking=lacking, fix=fix)
    camera = Intrinsics(**said.intrinsics.model_dump())
    convention = Convention(direction=said.poses, axes=said.axes, up=said.up)
    name, numbers = scene_name(folder), _numbers(colour)
    of_depth = _depth_camera(said, camera, depth[colour[0].stem])
    frames = (
        RawFrame(
            number=number,
            colour=path,
            depth=depth[path.stem],
            depth_per_m=said.depth_per_m,
            colour_camera=camera,
            depth_camera=of_depth,
            pose=PoseFile(path=poses[path.stem], convention=convention) if posed else None,
        )
        for number, path in zip(numbers, colour, strict=True)
    )
    return RawScene(name=name, frames=tuple(frames), camera=kept_camera(camera))


FORMAT = Format(
    name="rgbd",
    description="a plain folder of color, depth and pose, with a capture.yaml",
    marks=(CAPTURE, "color", "depth"),
    read=read,
)


def _said(path: Path) -> CaptureFile:
    source = read_yaml(path)
    if source.value is None:
        raise SpecErrors(source.problems, code=Code.DATASET)
    said, problems = check(source.value, CaptureFile)
    if problems or source.problems:
        raise SpecErrors([*source.problems, *problems], code=Code.DATASET)
    assert isinstance(said, CaptureFile)
    return said


def _order(path: Path) -> tuple[str, int, str]:
    head = path.stem.rstrip("0123456789")
    return head, int(path.stem[len(head) :] or -1), path.name


def _numbers(colour: list[Path]) -> list[str]:
    """Of frames: their files' own names where all may stand in an id, else 0, 1, ..."""
    stems = [path.stem for path in colour]
    own = all(FRAME_ID.fullmatch(f"x_{stem}") for stem in stems) and len(set(stems)) == len(stems)
    return stems if own and not any("_" in stem for stem in stems) else [str(index) for index in range(len(stems))]


def _depth_camera(said: CaptureFile, colour: Intrinsics, first: Path) -> Intrinsics:
    if said.depth_intrinsics is not None:
        return Intrinsics(**said.depth_intrinsics.model_dump())
    if first.suffix == ".exr":
        return colour
    width, height = image_size(first)
    if width * colour.height != height * colour.width:
        what = f"depth of {width}x{height} shows another part than colour of {colour.width}x{colour.height}"
        fix = "say its camera in capture.yaml as depth_intrinsics"
        raise DitrError(what, code=Code.DATASET, where=str(first), fix=fix)
    return resized(colour, width=width, height=height)
