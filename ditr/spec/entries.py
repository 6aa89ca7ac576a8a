"""Registry entries: the named, pinned things that specs refer to, one YAML file each under registry/."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ditr.spec.models import BackboneSpec, SeededWeights
from ditr.spec.numbers import (
    MOST_CHANNELS,
    MOST_CLASS_ID,
    MOST_SCENES,
    Amount,
    Channels,
    Count,
    Pixels,
    Positive,
    Probability,
    Scenes,
    Seed,
    Signed,
    Size,
    VoxelSize,
)
from ditr.spec.part import Part

SYNTHROOMS_VERSION = 2
"""Raised when the generator's output changes; part of the data's folder name and of every identity."""
SYNTHROOMS_IMAGE = (480, 640)
"""Height and width in pixels of its images."""


CameraMotion = Literal["viewpoints", "path"]


class SplitEntry(Part):
    """How much of an embedded split is made."""

    scenes: Scenes
    frames: Count
    """Frames a scene."""


class SynthRoomsEntry(Part):
    """An embedded data set of procedural rooms, made on first use; every field changes its digest."""

    kind: Literal["synthrooms"]
    description: str = ""
    seed: Seed
    first_scene: Annotated[int, Field(ge=0, le=MOST_SCENES)] = 0
    """Number of the first scene; sets whose scene ranges do not overlap share no room."""
    train: SplitEntry
    val: SplitEntry
    texture_share: Probability
    """Share of the things that touch a coplanar thing of the same mean colour and differ from it only in texture."""
    camera: Annotated[CameraMotion, Field(exclude_if=lambda motion: motion == "viewpoints")] = "viewpoints"
    """Of the frames of a scene: viewpoints of their own, or one smooth path. Viewpoints are not said in an entry's
    identity: sets of before there was a choice stay what they are."""


class IntrinsicsEntry(Part):
    """Pinhole intrinsics in pixels."""

    fx: Positive
    fy: Positive
    cx: Signed
    cy: Signed
    width: Pixels
    height: Pixels


class FolderEntry(Part):
    """A prepared folder that the user brings, in the layout of docs/data_format.md, which is that of ScanNet200-SV."""

    kind: Literal["folder"]
    description: str = ""
    imported: Annotated[bool, Field(exclude_if=lambda imported: not imported)] = False
    """Whether `ditr data import` wrote it: such a one it changes, and `ditr data rm` takes away."""
    path: str
    """Folder below the data directory (DITR_DATA), or an absolute path."""
    infos: Annotated[dict[Literal["train", "val"], str], Field(min_length=1)]
    """Info pickle of each split that there is, relative to the folder."""
    intrinsics: IntrinsicsEntry
    classes: dict[Annotated[int, Field(ge=1, le=MOST_CLASS_ID, strict=False)], str] = Field(default={})
    """Name of each class id that frames store; empty where they are ScanNet200's. Ids without a name are ignored."""
    stuff: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Those of these names that have no instances to find, such as walls."""


DatasetEntry = Annotated[SynthRoomsEntry | FolderEntry, Field(discriminator="kind")]


class PretrainedWeights(Part):
    """Published weights: a file of the user's if there is one, else timm's own download."""

    kind: Literal["pretrained"]
    file: str
    """Looked for beside the entry and in the weights directory (DITR_WEIGHTS)."""
    url: str = ""
    """Where the file can be had."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Pinned digest; null where the publisher's file could not be had, then the digest found is recorded."""


Weights = Annotated[SeededWeights | PretrainedWeights, Field(discriminator="kind")]
Rgb = Annotated[tuple[Signed, Signed, Signed], Field(strict=False)]
RgbScale = Annotated[tuple[Positive, Positive, Positive], Field(strict=False)]


class _Network(Part):
    """A frozen network that computes maps of images."""

    description: str = ""
    channels: Channels
    patch: Pixels
    """Pixels of the input per token, both ways; of a convolutional network its stride at the map that is taken."""
    mean: Rgb
    """Of red, green and blue in 0..1: taken from an image before it is divided by ``std``."""
    std: RgbScale
    sizes: Annotated[tuple[Size, ...], Field(strict=False)] = ()
    """Recommended input sizes for images of 4:3, height and width in pixels."""
    weights: Weights
    licence: str
    licence_url: str = ""
    """Where terms have to be accepted before the weights can be had."""


class _Timm(_Network):
    """A timm model."""

    timm: str
    """timm model name."""
    timm_args: dict[str, Annotated[int, Field(ge=0, le=MOST_CHANNELS)]] = Field(default={})
    """Architecture overrides passed to timm (embed_dim, depth, num_heads)."""


class VitEntry(_Timm):
    """A vision transformer: patch tokens of its layers, with the final norm."""

    kind: Literal["vit"]
    prefix_tokens: Amount
    """Class and register tokens that precede the patch tokens."""


class ConvEntry(_Timm):
    """A convolutional network: the map at the stride of ``patch``."""

    kind: Literal["conv"]


class PythonEntry(_Network):
    """A network of the user's: a class that gives maps of images (docs/your_source.md)."""

    kind: Literal["python"]
    module: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """Module and class, such as ``my_project.radio:Encoder``; its code is part of the experiment's identity."""
    mean: Rgb = (0.0, 0.0, 0.0)
    std: RgbScale = (1.0, 1.0, 1.0)
    weights: Weights = SeededWeights(kind="seeded", seed=0)
    """pretrained: the class is called with the file's path; seeded: without, after torch was seeded."""
    licence: str = ""


class _Given(Part):
    """2D features that somebody else computed: a folder with a file a frame, ``.pt`` or ``.npy``."""

    description: str = ""
    path: str
    """Folder below that of the data set, or an absolute path."""
    files: str = "{scene}/{number}.pt"
    """Where below it a frame's file is, from its scene, number and id."""
    channels: Channels


class PrecomputedEntry(_Given):
    """Maps, bare tensors or a dict with the tensor at "pix"."""

    kind: Literal["precomputed"]
    rows: Pixels
    columns: Pixels
    covers: Size
    """Height and width in image pixels that a map covers from the image's top left corner: the image, or more where it
    was padded right and below."""
    licence: str


class PointsEntry(_Given):
    """One feature a point, (N, C) a frame in the order of its points, as networks of points give (docs/features.md)."""

    kind: Literal["points"]
    licence: str = ""


TimmEntry = VitEntry | ConvEntry
NetworkEntry = VitEntry | ConvEntry | PythonEntry
"""What computes maps."""
GivenEntry = PrecomputedEntry | PointsEntry
"""What reads features that are there."""
FeatureEntry = Annotated[
    VitEntry | ConvEntry | PythonEntry | PrecomputedEntry | PointsEntry, Field(discriminator="kind")
]


class CheckpointEntry(Part):
    """3D weights with a pinned digest."""

    description: str = ""
    format: Literal["mask3d", "esam", "ditr"]
    file: str
    """Beside the entry, or in the weights directory (DITR_WEIGHTS)."""
    url: str = ""
    """Where the file can be had."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    """Pinned digest; null where the publisher's file could not be had, then the digest found is recorded."""
    key_prefix: str = ""
    """What the file puts before the model's names, such as `model.` of a Lightning checkpoint."""
    entries: Count
    """How many entries of the 3D-only model the file must set: a wrong count stops the run."""
    backbone: BackboneSpec
    """The backbone that the weights are of."""
    voxel_size_m: VoxelSize


Entry = SynthRoomsEntry | FolderEntry | NetworkEntry | GivenEntry | CheckpointEntry
