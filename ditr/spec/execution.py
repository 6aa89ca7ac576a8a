"""The engines that a run of a spec may have, and the spec with one of them named."""

from __future__ import annotations

from ditr.spec.models import Device, Engine, ExecutionSpec, Spec


def possible_engines(execution: ExecutionSpec) -> tuple[Engine, ...]:
    """By what the spec alone says: of auto both, where neither the device nor the precision leaves one."""
    if execution.engine != "auto":
        return (execution.engine,)
    if execution.precision != "float32":
        return ("triton",)
    return ("minkowski",) if execution.device == "cpu" else ("minkowski", "triton")


def with_engine(spec: Spec, engine: Engine) -> Spec:
    """The spec of a run that has this engine; its hash is that run's."""
    return spec.model_copy(update={"execution": spec.execution.model_copy(update={"engine": engine})})


def in_float32(spec: Spec) -> Spec:
    """The spec with what is computed in full precision."""
    return spec.model_copy(update={"execution": spec.execution.model_copy(update={"precision": "float32"})})


def on_device(spec: Spec, device: Device) -> Spec:
    """The spec with what its device is to be."""
    return spec.model_copy(update={"execution": spec.execution.model_copy(update={"device": device})})


def engine_of(spec: Spec) -> Engine:
    """Of a spec whose engine is named, as that of every run is."""
    engine = spec.execution.engine
    assert engine != "auto", "the engine of a run is settled before anything is made of its spec"
    return engine
