"""What a run leaves behind, as plain values: headline parameters, provenance and result."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from ditr.record import provenance
from ditr.record.folder import RunFolder, write_json, write_text
from ditr.runner.inputs import Inputs, LoadedWeights
from ditr.runner.plan import Planned, PlannedRun
from ditr.runner.unchanged import provenance_of, require_same_as_before
from ditr.spec.esam import esam_differences
from ditr.spec.models import Checkpoint, Spec

if TYPE_CHECKING:
    import torch

    from ditr.evaluation.evaluate import Evaluation
    from ditr.training.fit import FitResult


def headline(planned: PlannedRun, *, device: torch.device) -> dict[str, Any]:
    """The parameters that are shown beside each other when runs are compared; the resolved spec has all of them."""
    spec = planned.spec
    return headline_of_model(planned, device=device) | {
        "seed": planned.seed,
        "checkpoint": _checkpoint(spec.checkpoint),
        "augmentation": spec.augmentation is not None,
        "epochs": spec.schedule.epochs,
        "batch_size": spec.schedule.batch_size,
        "learning_rate": spec.schedule.learning_rate,
        "weight_decay": spec.schedule.weight_decay,
        "decay": spec.schedule.decay.kind,
    }


def headline_of_model(planned: Planned, *, device: torch.device) -> dict[str, Any]:
    """Those of them that do not depend on how the weights came about."""
    spec = planned.spec
    bifusion, injection, stem = spec.fusion.bifusion, spec.fusion.injection, spec.fusion.stem
    features = spec.read_features
    return _features(spec) | {
        "feature_mode": features.mode if features else None,
        "image_augmentation": features.augmentation is not None if features else None,
        "resize": features.resize if features else None,
        "layers": _joined(features.layers) if features else None,
        "variant": planned.variant,
        "dataset": spec.dataset.name,
        "voxel_size_m": spec.model.voxel_size_m,
        "planes": _joined(spec.model.backbone.planes),
        "decoder_width": spec.model.decoder.width,
        "gate": bifusion.gate if bifusion else None,
        "injection_target": injection.target if injection else None,
        "injection_order": injection.order if injection else None,
        "projection": injection.projection if injection else None,
        "init": injection.init if injection else None,
        "stem": stem.projection if stem else None,
        "esam_compat": spec.esam_compat,
        "device": str(device),
    }


def write_provenance(
    planned: Planned, *, inputs: Inputs, weights: Mapping[str, LoadedWeights | None], device: torch.device
) -> dict[str, Any]:
    """Writes and returns ``provenance.json``, and ``dirty.patch`` if the checkout has uncommitted changes.

    Of the sessions before, in which the training was begun, code, packages and device are kept under
    ``earlier_sessions``.

    Parameters
    ----------
    weights: by the use that was made of them, ``start_weights`` or ``evaluated_weights``.

    Raises
    ------
    DitrError: the training goes on, and the files it reads are not those that it was begun with.
    """
    import torch

    folder = planned.folder
    before = provenance_of(folder) if folder.training_state.is_file() else None
    facts = provenance.collect() | {
        "command": sys.argv,
        "spec": str(planned.source),
        "overrides": list(planned.overrides),
        "dataset": {
            "name": inputs.dataset.name,
            "root": str(inputs.dataset.root),
            "digest": inputs.dataset.digest,
            "intrinsics": inputs.dataset.intrinsics,
            "excluded_frames": list(inputs.excluded),
        },
        "features": inputs.features,
        **{use: _weights(loaded) for use, loaded in weights.items()},
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
    }
    patch = provenance.dirty_patch() if facts["git"] and facts["git"]["dirty"] else ""
    if patch:
        facts["git"]["patch_sha256"] = hashlib.sha256(patch.encode()).hexdigest()
    facts["earlier_sessions"] = []
    if before is not None:
        require_same_as_before(before, facts, folder=folder)
        facts["earlier_sessions"] = [*before.get("earlier_sessions", []), provenance.session_facts(before)]
        _keep_patch(folder, number=len(facts["earlier_sessions"]))
    write_json(folder.provenance, facts)
    if patch:
        write_text(folder.path / "dirty.patch", patch)
    return facts


def write_result(
    planned: Planned,
    *,
    inputs: Inputs,
    evaluation: Evaluation,
    fitted: FitResult | None,
    params: int,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Writes and returns ``result.json`` (the values of the results table and all statistics), and ``frames.jsonl``.

    Parameters
    ----------
    fitted: None where weights were evaluated without a training.
    params: number of weights of the model.
    facts: the provenance.
    """
    from ditr.evaluation.instance_facts import save_instances
    from ditr.evaluation.kept import save_frame, stored

    spec, folder = planned.spec, planned.folder
    result = result_of_inputs(planned, inputs=inputs, facts=facts) | {
        "n_frames": len(evaluation.frames),
        **{name: _number(value) for name, value in asdict(evaluation.scores).items()},
        "valid_ratio": _number(evaluation.statistics.get("valid_ratio")),
        "fusion_2d_ratio": _number(evaluation.statistics.get("fusion_2d_ratio")),
        "params_m": params / 1e6,
        "infer_ms": _number(evaluation.infer_ms),
        "peak_mem_mb": evaluation.peak_mem_mb,
        "memory_of": evaluation.memory_of,
        "esam_differences": esam_differences(
            spec,
            trained_on=None if fitted is None else len(inputs.train),
            evaluated=len(evaluation.frames),
            without_background=sum(row["n_void"] == 0 for row in evaluation.frames),
        ),
        "statistics": {name: _number(value) for name, value in evaluation.statistics.items()}
        | {"infer_peak_mem_mb": evaluation.peak_mem_mb},
    }
    result |= _of_weights(facts) if fitted is None else _of_training(planned, fitted, evaluation, result, facts)
    write_text(folder.frames, "".join(json.dumps(row) + "\n" for row in evaluation.frames))
    evaluation.table.save(folder.matches)
    save_instances(folder.instances, evaluation.instances)
    for kept in evaluation.kept:
        image_file = inputs.evaluated.frames.image_path(kept.index).read_bytes()
        save_frame(stored(kept, image_file=image_file), folder.kept / f"{kept.frame_id}.npz")
    write_json(folder.result, result)
    return result


def result_of_inputs(planned: Planned, *, inputs: Inputs, facts: dict[str, Any]) -> dict[str, Any]:
    """In the result of whatever is made of a spec: which data and code it is about."""
    git = facts["git"] or {}
    return _features(planned.spec) | {
        "dataset": inputs.dataset.name,
        "dataset_digest": inputs.dataset.digest,
        "excluded_frames": len(inputs.excluded),
        "intrinsics": inputs.dataset.intrinsics,
        "split": inputs.split,
        "esam_compat": planned.spec.esam_compat,
        "device": facts["device"],
        "git": git.get("commit"),
        "dirty": provenance.dirty(facts),
    }


def _of_weights(facts: dict[str, Any]) -> dict[str, Any]:
    """In the result of an evaluation: which weights it is about."""
    weights = facts["evaluated_weights"]
    return {"checkpoint": weights["file"], "evaluated_weights": weights}


def _of_training(
    planned: Planned, fitted: FitResult, evaluation: Evaluation, result: dict[str, Any], facts: dict[str, Any]
) -> dict[str, Any]:
    """In the result of a run: what the training was and what it cost."""
    folder = planned.folder
    cost = {"train_peak_mem_mb": fitted.peak_mem_mb, "step_ms_mean": fitted.step_ms}
    return {
        "epochs": fitted.epochs_done,
        "checkpoint": _checkpoint(planned.spec.checkpoint),
        "start_weights": facts["start_weights"],
        "step_ms": median(_logged(folder, "train/step_ms")),
        "data_ms": fmean(_logged(folder, "train/data_ms")),
        "peak_mem_mb": max(fitted.peak_mem_mb, evaluation.peak_mem_mb),
        "unmatched_samples": int(sum(_logged(folder, "train/unmatched_samples"))),
        "statistics": result["statistics"] | cost,
    }


def _keep_patch(folder: RunFolder, *, number: int) -> None:
    patch = folder.path / "dirty.patch"
    if patch.is_file():
        patch.rename(folder.path / f"dirty.session{number}.patch")


def _features(spec: Spec) -> dict[str, Any]:
    injection = spec.fusion.injection
    features = spec.read_features
    return {
        "feature_source": features.source if features else None,
        "input_size": _joined(features.input_size, mark="x") if features and features.input_size else None,
        "sampling": features.sampling if features else None,
        "control": features.control if features else None,
        "pooling": injection.pooling if injection else None,
        "scales": _joined(injection.scales) if injection else None,
    }


def _joined(numbers: Sequence[int], *, mark: str = ",") -> str:
    return mark.join(str(number) for number in numbers)


def _checkpoint(checkpoint: Checkpoint | None) -> str | None:
    if checkpoint is None:
        return None
    return checkpoint.name if checkpoint.kind == "registry" else checkpoint.path


def _weights(loaded: LoadedWeights | None) -> dict[str, Any] | None:
    if loaded is None:
        return None
    report = loaded.report
    return {
        "file": str(loaded.file.path),
        "sha256": loaded.file.sha256,
        "format": loaded.file.format,
        "key_prefix": loaded.file.key_prefix,
        "matched": report.matched,
        "missing": list(report.missing),
        "unexpected": list(report.unexpected),
        "by_group": {
            one.group: {
                "matched": len(one.matched),
                "missing": len(one.missing),
                "unexpected": len(one.unexpected),
            }
            for one in report.by_group
        },
        "converted": dict(report.converted),
    }


def _device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _logged(folder: RunFolder, name: str) -> list[float]:
    """The metric's value in each step of the training."""
    return [row["metrics"][name] for row in folder.logged() if name in row["metrics"]]


def _number(value: float | None) -> float | None:
    """None for what does not exist: JSON has no NaN."""
    return None if value is None or math.isnan(value) else value
