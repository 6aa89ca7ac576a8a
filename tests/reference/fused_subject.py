"""A small model and a few frames as the stage checks look at them; nothing is read from disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from ditr.checks.subject import Subject
from ditr.data.batch import as_it_is
from ditr.data.samples import SampleSet
from ditr.data.scannet_sv import FrameSet
from ditr.model.esam import EsamSingleView
from ditr.seeds import derive_seed
from ditr.spec.fusion import FusionSpec
from ditr.spec.models import (
    AugmentationSpec,
    BackboneSpec,
    DatasetSpec,
    DecoderSpec,
    ElasticSpec,
    FeatureSpec,
    ModelSpec,
    Spec,
)
from tests.reference.synthetic_frames import CHANNELS, BoxFrames
from tests.reference.synthetic_frames import tokens as tokens_of_frame

MODEL = ModelSpec(
    voxel_size_m=0.1,
    backbone=BackboneSpec(planes=(6, 6, 6, 6, 6, 6, 6, 6), layers=(1, 1, 1, 1, 1, 1, 1, 1), stem_channels=6),
    decoder=DecoderSpec(width=16, heads=2, feedforward=24, mask_levels=("superpoint", "point")),
)
"""All branches have the same width, so that one in the place of another breaks no shape."""


def fused_subject(
    fusion: FusionSpec,
    *,
    frames: int = 2,
    points: int = 300,
    tokens: Callable[[str], Tensor] = tokens_of_frame,
    **of_spec: Any,
) -> Subject:
    """Of boxes on a floor with random maps."""
    spec = Spec(
        name="small",
        dataset=DatasetSpec(name="boxes"),
        features=FeatureSpec(source="random", input_size=(84, 112)),
        model=MODEL,
        fusion=fusion,
        augmentation=AugmentationSpec(elastic=ElasticSpec(granularity=(3.0, 6.0), magnitude=(3.0, 6.0))),
        **of_spec,
    )
    read = tokens if fusion.parts else None
    boxes = cast(FrameSet, BoxFrames(frames, points=points))
    plain, augmented = (
        SampleSet(boxes, seed=0, voxel_size_m=MODEL.voxel_size_m, augmentation=augmentation, tokens=read)
        for augmentation in (None, spec.augmentation)
    )
    torch.manual_seed(derive_seed(0, "init"))
    model = EsamSingleView(
        MODEL,
        fusion=fusion,
        feature_channels=CHANNELS if fusion.parts else None,
        sampling="bilinear",
        query_fraction=0.5,
    )
    return Subject(
        spec=spec,
        frames=boxes,
        plain=plain,
        augmented=augmented,
        maps=None,
        source=None,
        model=model.eval(),
        device=torch.device("cpu"),
        seed=0,
        encode=as_it_is,
        entry=None,
        dataset_digest="",
        sampled=len(boxes),
    )
