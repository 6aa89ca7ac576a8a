"""Everything a run reads: the device, the data set, the 2D features, the model with its starting weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ditr.catalog import CheckpointFile, locate_checkpoint
from ditr.errors import Code, DitrError
from ditr.progress import Progress
from ditr.seeds import derive_seed
from ditr.spec.models import ExecutionSpec, Spec
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    import torch

    from ditr.data.dataset import Dataset
    from ditr.data.samples import SampleSet
    from ditr.model.checkpoint import LoadReport
    from ditr.model.esam import EsamSingleView


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What one run trains on and evaluates."""

    dataset: Dataset
    train: SampleSet
    val: SampleSet
    feature_channels: int | None
    """None in a 3D-only run."""
    features: dict[str, Any] | None
    """What the feature maps are made of, by their manifest; None in a 3D-only run."""


@dataclass(frozen=True, kw_only=True)
class StartWeights:
    """Where training starts from."""

    file: CheckpointFile
    report: LoadReport


def uses_features(spec: Spec) -> bool:
    """Whether any part of the fusion reads 2D features."""
    return spec.fusion.bifusion is not None or spec.fusion.injection is not None


def pick_device(execution: ExecutionSpec) -> torch.device:
    """The device of the spec; auto takes CUDA where torch and MinkowskiEngine have it.

    Raises
    ------
    DitrError: CUDA was asked for and there is none.
    """
    import torch

    from ditr.model.sparse import engine_has_cuda

    lacks = "torch sees no CUDA device" if not torch.cuda.is_available() else ""
    lacks = lacks or ("MinkowskiEngine was built without CUDA" if not engine_has_cuda() else "")
    if execution.device == "cuda" and lacks:
        fix = "Set execution.device to auto or cpu; `ditr doctor` says what is installed."
        raise DitrError(lacks, code=Code.ENVIRONMENT, where="execution.device", fix=fix)
    return torch.device("cpu" if lacks or execution.device == "cpu" else "cuda")


def prepare(
    spec: Spec, *, seed: int, registry: Registry, device: torch.device, progress: Progress, say: Callable[[str], None]
) -> Inputs:
    """Opens the data set and makes what is missing of it and of its features; a 3D-only run touches no features."""
    from ditr.data.dataset import open_dataset
    from ditr.data.samples import SampleSet

    began = time.monotonic()
    dataset = open_dataset(spec.dataset.name, registry=registry, progress=progress)
    say(f"  data: {dataset.name}, {len(dataset.train)} + {len(dataset.val)} frames, {_took(began)}")
    tokens, channels, manifest = None, None, None
    if uses_features(spec):
        from ditr.features.extract import ensure_features

        began = time.monotonic()
        assert spec.features is not None, "a spec with fusion and without features does not load"
        entry = registry.features(spec.features.source)
        frames = (dataset.train, dataset.val)
        store = ensure_features(
            frames, spec=spec.features, entry=entry, dataset=dataset, device=device, progress=progress
        )
        tokens, channels, manifest = store.read, entry.channels, store.manifest()
        say(f"  2D features: {spec.features.source}, maps of {store.shape}, {_took(began)}")
    else:
        say("  2D features: none made or read, there is no fusion")
    voxel_size_m, compat = spec.model.voxel_size_m, spec.esam_compat
    return Inputs(
        dataset=dataset,
        train=SampleSet(
            dataset.train,
            seed=seed,
            voxel_size_m=voxel_size_m,
            augmentation=spec.augmentation,
            tokens=tokens,
            esam_compat=compat,
        ),
        val=SampleSet(
            dataset.val, seed=seed, voxel_size_m=voxel_size_m, augmentation=None, tokens=tokens, esam_compat=compat
        ),
        feature_channels=channels,
        features=manifest,
    )


def build_model(
    spec: Spec, *, seed: int, registry: Registry, feature_channels: int | None
) -> tuple[EsamSingleView, StartWeights | None]:
    """The model on the CPU, initialised from the seed, then from the checkpoint; None where there is no checkpoint."""
    import torch

    from ditr.model.checkpoint import load_weights
    from ditr.model.esam import EsamSingleView

    torch.manual_seed(derive_seed(seed, "init"))
    model = EsamSingleView(
        spec.model,
        fusion=spec.fusion,
        feature_channels=feature_channels,
        sampling=spec.features.sampling if spec.features else "bilinear",
        query_fraction=spec.loss.query_fraction,
    )
    if spec.checkpoint is None:
        return model, None
    file = locate_checkpoint(spec.checkpoint, registry=registry)
    return model, StartWeights(file=file, report=load_weights(model, file.path, format=file.format))


def _took(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"
