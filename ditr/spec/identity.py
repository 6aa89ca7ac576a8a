"""What makes two experiments the same: everything that can change a number, and nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from ditr import plugins
from ditr.spec.entries import SYNTHROOMS_VERSION, Entry, PythonEntry, SynthRoomsEntry
from ditr.spec.execution import possible_engines, with_engine
from ditr.spec.fusion_part import DECODER_STRIDES
from ditr.spec.fusion_table import digest_of
from ditr.spec.models import Engine, ExecutionSpec, RegisteredCheckpoint, SeededWeights, Spec
from ditr.spec.registry import Registry

Variant = Literal["baseline", "bifusion", "fpn_inject", "custom"]

CHANGES_NO_NUMBER = {"name", "description", "tags", "checks", "tracking", "seeds", "max_seeds"}
"""Fields of a spec that no number of a run depends on."""
PLACES = {name: ExecutionSpec.model_fields[name].default for name in ("device", "gpus", "workers")}
"""Those of ``execution``, with their defaults."""
_DECIDES_EVALUATION = ("dataset", "features", "model", "fusion", "evaluation", "esam_compat", "execution")
FIRST_EXECUTION = {"engine": "minkowski", "precision": "float32"}
"""What every run had before there was a choice: left out of the identity, so that its key stays."""
_FIRST_EVALUATION_BATCH = 1
"""Frames at once of every evaluation before there was a choice: left out as well."""
_ENTRY_PROSE = {"description", "url", "licence", "licence_url", "sizes", "imported"}
_ADDED = ("classes", "stuff")
"""Fields of entries that there were not always: empty, they change no number, and so no key."""


def spec_hash(spec: Spec, *, registry: Registry) -> str:
    """64 hex digits of ``identity``; the same on every machine and for every order of keys."""
    text = canonical_json(identity(spec, registry=registry))
    return hashlib.sha256(text.encode()).hexdigest()


def run_hashes(spec: Spec, *, registry: Registry) -> dict[Engine, str]:
    """``spec_hash`` of a run, by the engine that it may have."""
    engines = possible_engines(spec.execution)
    return {engine: spec_hash(with_engine(spec, engine), registry=registry) for engine in engines}


def identity(spec: Spec, *, registry: Registry) -> dict[str, Any]:
    """The part of the spec that decides its numbers, with registry names replaced by what the entries say, and with
    the code of fusion parts that are not built in.

    Left out: name, description, tags, checks, tracking, seeds, max_seeds; device, gpus and workers of execution;
    features if no fusion reads them; of entries what is said to readers only.

    A run has the identity of a spec that names its engine: ``auto`` is another one, which is of no run, for what it
    comes to is the machine's matter.
    """
    result = spec.model_dump(mode="json", exclude={**dict.fromkeys(CHANGES_NO_NUMBER, True), "execution": set(PLACES)})
    if result["execution"] == FIRST_EXECUTION:
        del result["execution"]
    result["dataset"]["name"] = _content(registry.dataset(spec.dataset.name))
    if features := spec.read_features:
        result["features"]["source"] = _content(registry.features(features.source))
    else:
        result["features"] = None
    for name in spec.fusion.own_parts:
        result["fusion"][name] = {"fields": result["fusion"][name], "code": digest_of(name)}
    if isinstance(spec.checkpoint, RegisteredCheckpoint):
        result["checkpoint"]["name"] = _content(registry.checkpoint(spec.checkpoint.name))
    return result


def evaluation_hash(spec: Spec, *, registry: Registry, weights_sha256: str, split: str, frames: int | None) -> str:
    """64 hex digits of what decides an evaluation of given weights; how these came about takes no part.

    Of the schedule ``batch_size`` does: it changes sums by their rounding, in half precision more than in float32.

    Parameters
    ----------
    frames: the first so many of the split; None all.
    """
    whole = identity(spec.model_copy(update={"checkpoint": None}), registry=registry)
    decides = {part: whole[part] for part in _DECIDES_EVALUATION if part in whole}
    decides |= {"weights": weights_sha256, "split": split, "frames": frames}
    if (batch_size := spec.schedule.batch_size) != _FIRST_EVALUATION_BATCH:
        decides["batch_size"] = batch_size
    return hashlib.sha256(canonical_json(decides).encode()).hexdigest()


def run_key(spec_hash: str, seed: int) -> str:
    """10 hex digits that name the run of one seed."""
    return hashlib.sha256(f"{spec_hash}:{seed}".encode()).hexdigest()[:10]


def variant(spec: Spec) -> Variant:
    """Which arm of the study a spec is; one whose features are a control is none of them."""
    injection, parts = spec.fusion.injection, set(spec.fusion.parts)
    if is_control(spec):
        return "custom"
    if parts <= {"bifusion"}:
        return "bifusion" if parts else "baseline"
    whole = injection is not None and set(injection.scales) == set(DECODER_STRIDES)
    return "fpn_inject" if whole and parts == {"bifusion", "injection"} else "custom"


def shown_variant(variant: str, *, fusion: str | None) -> str:
    """A variant as tables show it: ``custom`` with the names of its parts, such as ``custom (film)``.

    Parameters
    ----------
    fusion: ``fusion_parts`` of the spec; None where nobody noted them.
    """
    return f"custom ({fusion})" if variant == "custom" and fusion else variant


def fusion_parts(spec: Spec) -> str | None:
    """Names of the parts, such as ``injection,bifusion``; None of the 3D-only baseline."""
    return ",".join(spec.fusion.parts) or None


def is_control(spec: Spec) -> bool:
    """Whether a fusion reads features without learned information about its frame: zeros, another frame's map, or
    those of a source whose weights the spec makes random.
    """
    features = spec.read_features
    if features is None:
        return False
    return features.control != "none" or isinstance(features.weights, SeededWeights)


def canonical_json(value: object) -> str:
    """One text for equal values: sorted keys, no spaces, floats in their shortest exact form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _content(entry: Entry) -> object:
    added = {name for name in _ADDED if not getattr(entry, name, True)}
    content = without_prose(entry.model_dump(mode="json", exclude=added))
    if isinstance(entry, SynthRoomsEntry):
        return {"generator": SYNTHROOMS_VERSION, "entry": content}
    if isinstance(entry, PythonEntry):
        return {"code": plugins.code_digest(entry.module), "entry": content}
    return content


def without_prose(value: object) -> object:
    """A dump of a registry entry without what is said to readers only."""
    if isinstance(value, dict):
        return {key: without_prose(child) for key, child in value.items() if key not in _ENTRY_PROSE}
    return value
