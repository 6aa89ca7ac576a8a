"""What a run leaves behind, as plain values: provenance and result."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from ditr.files import write_json, write_text
from ditr.paths import portable_path, portable_text
from ditr.record import provenance
from ditr.record.checkout import dirty_patch, withheld
from ditr.record.folder import Record
from ditr.record.views.headline import checkpoint_name, features_of
from ditr.runner.fusion_code import fusion_code
from ditr.runner.inputs import Inputs, LoadedWeights
from ditr.runner.plan import PlannedRecord
from ditr.runner.plugin_code import copy_plugins
from ditr.runner.unchanged import require_same_as_before
from ditr.spec.esam import esam_differences

if TYPE_CHECKING:
    import torch

    from ditr.evaluation.evaluate import Evaluation
    from ditr.training.fit import FitResult


def write_provenance(
    planned: PlannedRecord,
    *,
    inputs: Inputs,
    weights: Mapping[str, LoadedWeights | None],
    device: torch.device,
    ranks: int = 1,
) -> dict[str, Any]:
    """Writes and returns ``provenance.json``, and ``dirty.patch`` if the checkout has uncommitted changes.

    Of the sessions before, in which the training was begun, code, packages and device are kept under
    ``earlier_sessions``.

    Parameters
    ----------
    weights: by the use that was made of them, ``start_weights`` or ``evaluated_weights``.
    ranks: how many processes make the numbers together.

    Raises
    ------
    DitrError: the training goes on, and the files it reads are not those that it was begun with.
    """
    import torch

    folder = planned.folder
    before = folder.read_provenance() if folder.training_state.is_file() else None
    facts = provenance.collect() | {
        "command": provenance.command(),
        "spec": portable_path(planned.source),
        "overrides": [portable_text(text) for text in planned.overrides],
        "dataset": {
            "name": inputs.dataset.name,
            "root": portable_path(inputs.dataset.root),
            "digest": inputs.dataset.digest,
            "intrinsics": inputs.dataset.intrinsics,
            "excluded_frames": list(inputs.excluded),
        },
        "features": inputs.features,
        **{use: _weights(loaded) for use, loaded in weights.items()},
        "fusion_code": (parts := fusion_code(planned.spec)),
        "plugins": copy_plugins(folder, [*(part["reference"] for part in parts.values()), *_source_code(inputs)]),
        "engine": planned.spec.execution.engine,
        "precision": planned.spec.execution.precision,
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "ranks": ranks,
        "norms": "of a batch" if ranks == 1 else "of a batch, summed over its ranks",
    }
    patch = dirty_patch() if facts["git"] and facts["git"]["dirty"] else ""
    if patch:
        facts["git"]["patch_sha256"] = hashlib.sha256(patch.encode()).hexdigest()
        facts["git"]["withheld"] = withheld(patch)
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
    planned: PlannedRecord,
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
    from ditr.data.frame_view import save_view
    from ditr.evaluation.instance_facts import save_instances

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
            trained_on=None if fitted is None else len(inputs.trained_on),
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
    frames = inputs.evaluated.frames
    for view in evaluation.views:
        save_view(view, folder.kept, image_file=frames.image_path(frames.ids.index(view.frame_id)).read_bytes())
    write_json(folder.result, result)
    return result


def result_of_inputs(planned: PlannedRecord, *, inputs: Inputs, facts: dict[str, Any]) -> dict[str, Any]:
    """In the result of whatever is made of a spec: which data and code it is about."""
    git = facts["git"] or {}
    return features_of(planned.spec) | {
        "dataset": inputs.dataset.name,
        "dataset_digest": inputs.dataset.digest,
        "excluded_frames": len(inputs.excluded),
        "intrinsics": inputs.dataset.intrinsics,
        "split": inputs.split,
        "esam_compat": planned.spec.esam_compat,
        "engine": facts["engine"],
        "precision": facts["precision"],
        "device": facts["device"],
        "git": git.get("commit"),
        "dirty": provenance.dirty(facts),
    }


def _of_weights(facts: dict[str, Any]) -> dict[str, Any]:
    """In the result of an evaluation: which weights it is about."""
    weights = facts["evaluated_weights"]
    return {"checkpoint": weights["file"], "evaluated_weights": weights}


def _of_training(
    planned: PlannedRecord, fitted: FitResult, evaluation: Evaluation, result: dict[str, Any], facts: dict[str, Any]
) -> dict[str, Any]:
    """In the result of a run: what the training was and what it cost."""
    folder = planned.folder
    cost = {"train_peak_mem_mb": fitted.peak_mem_mb, "step_ms_mean": fitted.step_ms}
    return {
        "epochs": fitted.epochs_done,
        "checkpoint": checkpoint_name(planned.spec.checkpoint),
        "start_weights": facts["start_weights"],
        "step_ms": median(_logged(folder, "train/step_ms")),
        "data_ms": fmean(_logged(folder, "train/data_ms")),
        "peak_mem_mb": max(fitted.peak_mem_mb, evaluation.peak_mem_mb),
        "unmatched_samples": int(sum(_logged(folder, "train/unmatched_samples"))),
        "statistics": result["statistics"] | cost,
    }


def _source_code(inputs: Inputs) -> list[str]:
    """The class of a 2D source of the user's own."""
    entry = (inputs.features or {}).get("entry") or {}
    return [entry["module"]] if entry.get("kind") == "python" else []


def _keep_patch(folder: Record, *, number: int) -> None:
    patch = folder.path / "dirty.patch"
    if patch.is_file():
        patch.rename(folder.path / f"dirty.session{number}.patch")


def _weights(loaded: LoadedWeights | None) -> dict[str, Any] | None:
    if loaded is None:
        return None
    report = loaded.report
    return {
        "file": portable_path(loaded.file.path),
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


def _logged(folder: Record, name: str) -> list[float]:
    """The metric's value in each step of the training."""
    return [row["metrics"][name] for row in folder.logged() if name in row["metrics"]]


def _number(value: float | None) -> float | None:
    """None for what does not exist: JSON has no NaN."""
    return None if value is None or math.isnan(value) else value
