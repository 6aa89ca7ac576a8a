"""The about 20 values of a record that are shown beside each other when records are compared; its spec has all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ditr.spec.identity import fusion_parts
from ditr.spec.models import Checkpoint, Spec


def headline(spec: Spec, *, variant: str, seed: int | None, facts: Mapping[str, Any]) -> dict[str, str]:
    """Of a record with a spec, in words; what it has not is left out.

    Parameters
    ----------
    facts: what result.json and provenance.json say of what the spec does not: device, split, n_frames, stages.
    """
    trained = seed is not None
    schedule = spec.schedule
    found = features_of(spec) | {
        "variant": variant,
        "dataset": spec.dataset.name,
        "voxel_size_m": spec.model.voxel_size_m,
        "planes": joined(spec.model.backbone.planes),
        "decoder_width": spec.model.decoder.width,
        "engine": spec.execution.engine,
        "precision": spec.execution.precision,
        "esam_compat": spec.esam_compat,
        "seed": seed,
        "checkpoint": checkpoint_name(spec.checkpoint) if trained else None,
        "augmentation": spec.augmentation is not None if trained else None,
        "epochs": schedule.epochs if trained else None,
        "batch_size": schedule.batch_size if trained else None,
        "learning_rate": schedule.learning_rate if trained else None,
        "weight_decay": schedule.weight_decay if trained else None,
        "decay": schedule.decay.kind if trained else None,
        **_fusion_of(spec),
        **facts,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def features_of(spec: Spec) -> dict[str, Any]:
    """The columns of the results table that a spec's 2D features and their pooling fill; None in a 3D-only spec."""
    injection = spec.fusion.injection
    features = spec.read_features
    return {
        "feature_source": features.source if features else None,
        "input_size": joined(features.input_size, mark="x") if features and features.input_size else None,
        "sampling": features.sampling if features else None,
        "control": features.control if features else None,
        "fusion": fusion_parts(spec),
        "pooling": injection.pooling if injection else None,
        "scales": joined(injection.scales) if injection else None,
    }


def checkpoint_name(checkpoint: Checkpoint | None) -> str | None:
    """Of a registry entry, or the path as the spec has it."""
    if checkpoint is None:
        return None
    return checkpoint.name if checkpoint.kind == "registry" else checkpoint.path


def joined(numbers: Sequence[int], *, mark: str = ",") -> str:
    """Such as ``8,4,2,1``."""
    return mark.join(str(number) for number in numbers)


def _fusion_of(spec: Spec) -> dict[str, Any]:
    bifusion, injection, stem = spec.fusion.bifusion, spec.fusion.injection, spec.fusion.stem
    features = spec.read_features
    return {
        "feature_mode": features.mode if features else None,
        "image_augmentation": features.augmentation is not None if features else None,
        "resize": features.resize if features else None,
        "layers": joined(features.layers) if features else None,
        "gate": bifusion.gate if bifusion else None,
        "injection_target": injection.target if injection else None,
        "injection_order": injection.order if injection else None,
        "projection": injection.projection if injection else None,
        "init": injection.init if injection else None,
        "stem": stem.projection if stem else None,
        **{name: part.model_dump_json() for name, part in spec.fusion.own_parts.items()},
    }
