"""The spec: everything that states an experiment. Frozen, closed to unknown keys, documented under each field."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ditr.spec.check_limits import ChecksSpec
from ditr.spec.fusion import FusionSpec
from ditr.spec.numbers import (
    Amount,
    Blocks,
    Channels,
    Count,
    Factor,
    Gpus,
    Layer,
    NonNegative,
    Positive,
    Probability,
    Processes,
    Rate,
    Seed,
    SeedCount,
    Size,
    Spacing,
    Spread,
    VoxelSize,
    Width,
)
from ditr.spec.part import Part

_EIGHT = Field(min_length=8, max_length=8, strict=False)
"""Stages of a backbone."""


class DatasetSpec(Part):
    """Which frames are trained on and evaluated."""

    name: str
    """An entry of registry/datasets."""
    broken_frames: Literal["refuse", "exclude"] = "refuse"
    """What a run does about frames with missing, truncated or senseless files: refuse to start, or leave them out and
    count them in the results."""


class SeededWeights(Part):
    """Random weights from a fixed seed: needs no download and carries no learned knowledge."""

    kind: Literal["seeded"]
    seed: Seed


class HubWeights(Part):
    """What timm downloads under the source's name, whatever file lies on this machine."""

    kind: Literal["hub"]


class FileWeights(Part):
    """A file of the user's, with timm's names or, of DINOv2, the publisher's."""

    kind: Literal["file"]
    path: str
    """Path of the file, relative to the project folder or absolute."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Pinned digest; null records the one found."""


OwnWeights = Annotated[SeededWeights | HubWeights | FileWeights, Field(discriminator="kind")]


class ImageAugmentationSpec(Part):
    """Training augmentations of the image that 2D features are computed of; factors are uniform in 1 plus or minus."""

    brightness: Probability = 0.4
    contrast: Probability = 0.4
    saturation: Probability = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Shift is uniform in plus or minus this share of the colour circle."""
    mirror_with_points: bool = True
    """Mirror the image left to right where the augmentation mirrors the points (one of its two flips, not both)."""


Control = Literal["none", "zero", "shuffled", "mean"]
"""Of the 2D features: as they are, or in a way that tells a point nothing."""


class FeatureSpec(Part):
    """Where 2D features come from and how a point reads them."""

    source: str
    """An entry of registry/features."""
    weights: OwnWeights | None = None
    """Other weights of that source's model; null takes those of the entry."""
    mode: Literal["stored", "online"] = "stored"
    """stored: each frame's map is computed once and kept on disk; online: it is computed anew in every step."""
    input_size: Size | None = None
    """Height and width in pixels of what the source sees; multiples of its patch. Null for precomputed maps and
    features of points only."""
    resize: Literal["resize", "pad"] = "resize"
    """How the image becomes input_size: resized whatever its shape, or kept as it is with padding right and below."""
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, strict=False)] = (-1,)
    """Layers of a vision transformer whose tokens are taken, each with the final norm, their channels one after the
    other; counted from 0, or from the end: -1 is the last."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """In which the source computes; maps are kept in float16 whatever it is."""
    augmentation: ImageAugmentationSpec | None = None
    """Of training images, which only mode online can have."""
    sampling: Literal["nearest", "bilinear"] = "bilinear"
    """How a point reads the token map at its pixel."""
    control: Control = "none"
    """zero: points read zeros; shuffled: every frame reads the map of a frame of another scene; mean: all frames of a
    split read the mean of its maps, which tells a point where in the image it is and nothing else. The same network
    with features that tell nothing of their image: what such an arm gains is not due to what the image shows."""


class BackboneSpec(Part):
    """Res16UNet: four strided encoder stages, four decoder stages (reference: Choy et al. 2019, Mask3D)."""

    planes: Annotated[tuple[Width, ...], _EIGHT] = (32, 64, 128, 256, 256, 128, 96, 96)
    """Channels of the eight stages, encoder first; the default is Res16UNet34C."""
    layers: Annotated[tuple[Blocks, ...], _EIGHT] = (2, 3, 4, 6, 2, 2, 2, 2)
    """Residual blocks of the eight stages."""
    stem_channels: Width = 32
    """Channels of the 5x5x5 stem and of the first strided convolution."""


class DecoderSpec(Part):
    """Query decoder over superpoints."""

    width: Width = 256
    """Channels of queries, keys and mask features."""
    heads: Width = 8
    """Attention heads; divides width."""
    feedforward: Channels = 1024
    """Hidden channels of the feed-forward layers."""
    mask_levels: Annotated[tuple[Literal["superpoint", "point"], ...], Field(min_length=2, strict=False)] = (
        "superpoint",
        "superpoint",
        "point",
        "point",
    )
    """What each prediction head masks: one before the first decoder layer and one after each layer."""


class ModelSpec(Part):
    """The 3D model, the same in every arm."""

    voxel_size_m: VoxelSize = 0.02
    """Edge of a stride-1 voxel in metres."""
    backbone: BackboneSpec = BackboneSpec()
    decoder: DecoderSpec = DecoderSpec()


class ElasticSpec(Part):
    """Smooth random displacement of the voxelised coordinates, applied at two granularities."""

    probability: Probability = 0.5
    granularity: Annotated[tuple[Spacing, Spacing], Field(strict=False)] = (6.0, 20.0)
    """Spacing of the noise grid in voxels, fine then coarse."""
    magnitude: Annotated[tuple[Spread, Spread], Field(strict=False)] = (40.0, 160.0)
    """Standard deviation of the noise before smoothing, in voxels, fine then coarse."""


class AugmentationSpec(Part):
    """Training augmentations of the points; uv is computed before them, so all of them are safe with 2D features."""

    flip_probability: Probability = 0.5
    """Chance of x -> -x, and independently of y -> -y."""
    rotation_rad: Annotated[float, Field(ge=0, le=10)] = 3.14
    """Rotation about +z is uniform in plus or minus this."""
    scale: Annotated[tuple[Factor, Factor], Field(strict=False)] = (0.8, 1.2)
    """Uniform range of the isotropic scale."""
    translation_std_m: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Standard deviation of the shift of each axis."""
    elastic: ElasticSpec | None = ElasticSpec()


class LossSpec(Part):
    """Weights of the loss terms; the defaults are ESAM's."""

    classification: NonNegative = 0.5
    no_object: NonNegative = 0.1
    """Class weight of "no object" in the classification term."""
    mask_bce: NonNegative = 1.0
    mask_dice: NonNegative = 1.0
    dice_final: NonNegative = 4.0
    """Factor of the last head's dice term."""
    dice_aux: NonNegative = 0.25
    """Factor of the earlier heads' dice terms; ESAM's is 4 / batch size, this at its 16 (see esam_compat)."""
    semantic: NonNegative = 0.5
    query_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Least share of a frame's superpoints drawn as training queries; the share is uniform between this and 1."""


class PolyDecay(Part):
    """Polynomial decay by epoch to ``final`` after the last epoch; with ``esam_compat`` in the last epoch."""

    kind: Literal["poly"]
    power: Rate = 0.9
    final: Annotated[float, Field(ge=0, le=100)] = 0.0


class ConstantDecay(Part):
    """No decay."""

    kind: Literal["constant"]


Decay = Annotated[PolyDecay | ConstantDecay, Field(discriminator="kind")]


class ScheduleSpec(Part):
    """How long and how the model trains; AdamW on all parameters."""

    epochs: Count = 128
    batch_size: Count = 16
    """Frames of a step, and of a forward pass of an evaluation, where it changes rounding alone."""
    learning_rate: Rate = 1e-4
    weight_decay: NonNegative = 0.05
    grad_clip_norm: Positive = 10.0
    decay: Decay = PolyDecay(kind="poly")
    validate_every: Count = 8
    """Epochs between validations; the last epoch is always validated."""


class RegisteredCheckpoint(Part):
    """Weights named in the registry, with a pinned digest."""

    kind: Literal["registry"]
    name: str
    """An entry of registry/checkpoints."""


class FileCheckpoint(Part):
    """Weights in a file of the user's."""

    kind: Literal["file"]
    path: str
    """Path of the file, relative to the project folder or absolute."""
    format: Literal["mask3d", "esam", "ditr"]
    """mask3d: the backbone's entries must match; esam and ditr: every entry of the 3D-only model must match."""
    key_prefix: str = ""
    """What the file puts before the model's names, such as `model.` of a Lightning checkpoint."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Pinned digest; null records the one found."""


Checkpoint = Annotated[RegisteredCheckpoint | FileCheckpoint, Field(discriminator="kind")]


class EvaluationSpec(Part):
    """From the last head's masks to instances, and how they are scored."""

    protocol: Literal["class_agnostic"] = "class_agnostic"
    top_k: Count = 100
    """Most queries kept by class score."""
    object_normalization: bool = True
    """Multiply the class score by the mean mask probability inside the mask."""
    mask_threshold: Probability = 0.4
    """A point belongs to a mask above this probability."""
    min_score: NonNegative = 0.0
    """Instances score more than this."""
    min_points: Count = 100
    """Predicted instances have more points than this; smaller ground truth is ignored."""


class TrackingSpec(Part):
    """What is recorded besides the run folder; changes no number."""

    mlflow: bool = True
    panels: Amount = 4
    """Frames drawn as prediction panels and kept for reports, spread evenly over those evaluated."""


Device = Literal["cpu", "cuda"]
Engine = Literal["minkowski", "triton"]
Precision = Literal["float32", "bfloat16", "float16"]


class ExecutionSpec(Part):
    """Where and how it runs. Engine and precision change numbers and are part of the identity; device, gpus and workers
    are recorded in the results."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU if torch sees one, and then it is an error if no engine can use it; cpu: the CPU beside a GPU
    too."""
    engine: Literal["auto", "minkowski", "triton"] = "auto"
    """What computes the sparse convolutions. minkowski: MinkowskiEngine, the reference; triton: Triton kernels, on a
    GPU of compute capability 8.0 or more; auto: triton where it can run, else minkowski. The two differ by rounding: a
    run is of the one that it ran with, which its resolved spec names."""
    precision: Precision = "float32"
    """What features and weights are multiplied in; the two half precisions need the engine triton. Parameters, norms,
    softmax and losses stay in float32, and float16 scales the loss."""
    gpus: Gpus = 1
    """GPUs of this machine that a run uses at once: each gets its part of every batch, whose size stays that of the
    schedule, and numbers change by rounding alone. Of no meaning on the CPU, and under torchrun, which says how many.
    """
    workers: Processes = 2
    """Processes that read and augment frames, at most one a core; so many for each GPU."""


class Spec(Part):
    """One experiment: with each of its seeds, one run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
    """Short name, used for the run folder."""
    description: str = ""
    tags: Annotated[tuple[str, ...], Field(strict=False)] = ()
    dataset: DatasetSpec
    features: FeatureSpec | None = None
    """Needed by any fusion; ignored, and not part of the identity, without one."""
    model: ModelSpec = ModelSpec()
    fusion: FusionSpec = FusionSpec()
    checkpoint: Checkpoint | None = None
    """Weights that training starts from; null trains from scratch."""
    augmentation: AugmentationSpec | None = AugmentationSpec()
    loss: LossSpec = LossSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    esam_compat: bool = False
    """Reproduce what ESAM does and ditr by default does not: the first instance of a frame without background is lost,
    earlier heads' dice terms weigh 4 / batch size of the step, a poly decay reaches its final rate in the last epoch
    rather than after it, and AP averages nine thresholds, 0.50 to 0.90, not ten."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, strict=False)] = (0,)
    """One run each."""
    max_seeds: SeedCount | None = None
    """Most seeds that `ditr run --until-decided` may come to, looking at the comparison every two of them. Every
    comparison of these runs accounts for the looks, so it is set before the first and then stays."""
    checks: ChecksSpec = ChecksSpec()
    tracking: TrackingSpec = TrackingSpec()
    execution: ExecutionSpec = ExecutionSpec()

    @property
    def read_features(self) -> FeatureSpec | None:
        """The 2D features that the fusion reads; None without a fusion, whatever `features` says."""
        return self.features if self.fusion.parts else None
