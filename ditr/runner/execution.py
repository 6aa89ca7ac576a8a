"""Where and how a run is computed on this machine: its device, its engine, and whether the two fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ditr.driver import hidden_gpu_here
from ditr.errors import Code, DitrError
from ditr.spec.execution import engine_of, in_float32, on_device, possible_engines, with_engine
from ditr.spec.load import LoadedSpec
from ditr.spec.models import Device, ExecutionSpec, Spec
from ditr.spec.problems import Origin

if TYPE_CHECKING:
    import torch

Origins = Mapping[str, Origin]
"""Where the values of a spec were written, by dotted path; those that were not are absent."""
_NOWHERE: Origins = {}


def settle(spec: Spec, *, device: Device | None = None, elsewhere: bool = False, origins: Origins = _NOWHERE) -> Spec:
    """The spec with the engine named that a run of it has here; on ``device``, where that is decided already.

    Of another machine, ``elsewhere``, nothing but the device is known: its GPU is taken for one that every engine can
    use, as ``choose_engine`` takes it.

    What a spec leaves open is decided before anything is made of it: the run's key, its resolved spec and its results
    are of the engine that computes it. That this can run here is another question, of ``pick_device``.

    Raises
    ------
    DitrError: the spec leaves the engine open and there is no such device, or no engine that can use it.
    """
    execution = (spec if device is None else on_device(spec, device)).execution
    possible = possible_engines(execution)
    if len(possible) == 1:
        return with_engine(spec, possible[0])
    if elsewhere:
        return with_engine(spec, "triton" if execution.device == "cuda" else "minkowski")
    from ditr.model.sparse.choice import choose_engine

    return with_engine(spec, choose_engine("auto", device=torch_device(execution, origins=origins)))


def settle_loaded(loaded: LoadedSpec, *, device: Device | None = None, elsewhere: bool = False) -> LoadedSpec:
    """As ``settle``, of a spec file."""
    return replace(loaded, spec=settle(loaded.spec, device=device, elsewhere=elsewhere, origins=loaded.origins))


def settle_to_look(spec: Spec) -> Spec:
    """The spec of a run with an engine of this machine, and in float32 where its half precision cannot be had.

    For pictures of what a run says, which another machine may have computed: nothing of them is recorded.
    """
    free = spec.execution.model_copy(update={"engine": "auto"})
    here = settle(in_float32(spec.model_copy(update={"execution": free})))
    if engine_of(here) == "minkowski":
        return here
    return with_engine(spec, "triton")


def pick_device(spec: Spec, *, origins: Origins = _NOWHERE) -> torch.device:
    """The device of a spec whose engine is named; auto is CUDA where torch sees a GPU.

    Raises
    ------
    DitrError: CUDA was asked for and there is none, or the spec's engine or precision cannot be had on the device.
    """
    from ditr.model.sparse.choice import engine_lack

    execution = spec.execution
    device = torch_device(execution, origins=origins)
    engine = engine_of(spec)
    lack = engine_lack(engine, device=device)
    if lack is None:
        return device
    what, field, instead = f"the engine {engine} cannot run here: {lack.what}", "engine", "auto"
    if execution.precision != "float32":
        what = f"{execution.precision} needs the engine triton, which cannot run here: {lack.what}"
        field, instead = "precision", "float32"
    fix = f"{lack.fix}; or set execution.{field} to {instead}."
    raise _error(what, path=f"execution.{field}", origins=origins, fix=fix)


def how(spec: Spec) -> str:
    """Engine and precision in words."""
    return f"{spec.execution.engine} in {spec.execution.precision}"


def torch_device(execution: ExecutionSpec, *, origins: Origins = _NOWHERE) -> torch.device:
    """Of what needs nothing but torch; auto is CUDA where torch sees a GPU.

    Raises
    ------
    DitrError: CUDA was asked for and there is none.
    """
    import torch

    if execution.device == "cpu" or (execution.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        what, fix = "torch sees no CUDA device", "`ditr doctor` says what is there"
        if hidden := hidden_gpu_here():
            what, fix = hidden.what, hidden.fix
        fix = f"Set execution.device to auto or cpu; {fix}."
        raise _error(what, path="execution.device", origins=origins, fix=fix)
    return torch.device("cuda")


def _error(what: str, *, path: str, origins: Origins, fix: str) -> DitrError:
    where = f"{origins[path]}: {path}" if path in origins else path
    return DitrError(what, code=Code.ENVIRONMENT, where=where, fix=fix)
