"""timm's models as the registry describes them, made without weights of their own."""

from __future__ import annotations

import importlib.util
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ditr.errors import Code, DitrError
from ditr.spec.entries import ConvEntry, TimmEntry, VitEntry

_torchvision_operators: list[torch.library.Library] = []


def create(entry: TimmEntry) -> nn.Module:
    """The entry's model as its constructor draws it, for any input size; DitrError if timm does not make it so."""
    arguments: dict[str, Any] = {"num_classes": 0, **entry.timm_args}
    if isinstance(entry, VitEntry):
        arguments["dynamic_img_size"] = True
    name, timm = known(entry), import_timm()
    try:
        model: nn.Module = timm.create_model(name, **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise _misfit(entry, f"timm cannot make it as a model of kind: {entry.kind} ({error})") from error
    return model


def known(entry: TimmEntry) -> str:
    """The entry's timm name; DitrError with close ones if timm does not have it."""
    timm = import_timm()
    architecture, _, tag = entry.timm.partition(".")
    if timm.is_model(architecture) and (not tag or entry.timm in timm.list_pretrained(f"{architecture}.*")):
        return entry.timm
    close = get_close_matches(entry.timm, timm.list_models() + timm.list_pretrained(), n=3)
    raise DitrError(
        f"timm {timm.__version__} has no model {entry.timm}",
        code=Code.REGISTRY,
        where="timm",
        fix=f"correct the entry under registry/features{'; close names: ' + ', '.join(close) if close else ''}",
    )


def check(model: nn.Module, entry: TimmEntry, *, published: bool) -> None:
    """The entry's numbers are what maps are shaped and points are placed by, so each has to be the model's own.

    Parameters
    ----------
    published: whether the weights were trained, on images normalised as timm says; random ones were trained on none.
    """
    of_model: Any = model
    found = _of_vit(of_model, entry) if isinstance(entry, VitEntry) else _of_conv(of_model, entry)
    if published:
        found |= {name: tuple(of_model.pretrained_cfg[name]) for name in ("mean", "std")}
    wrong = {name: value for name, value in found.items() if value != getattr(entry, name)}
    if wrong:
        stated = ", ".join(f"{name}: {getattr(entry, name)}" for name in wrong)
        raise _misfit(entry, f"the entry says {stated} of {entry.timm}, which has {_listed(wrong)}")


def stage_of(model: nn.Module, entry: ConvEntry) -> int:
    """Which of timm's intermediate maps has the entry's stride."""
    stages: Any = model.feature_info
    strides = [stage["reduction"] for stage in stages]
    if entry.patch not in strides:
        raise _misfit(entry, f"{entry.timm} has maps at strides {strides}, none at patch: {entry.patch}")
    return strides.index(entry.patch)


def _of_vit(model: Any, entry: VitEntry) -> dict[str, Any]:
    if not hasattr(model, "blocks"):
        raise _misfit(entry, f"{entry.timm} is no vision transformer", fix="make the entry one of kind: conv")
    if isinstance(model.norm, nn.Identity):
        raise _misfit(
            entry,
            f"{entry.timm} has its final norm after the pooling of tokens, so its tokens are not normalised",
            fix="name a model whose last layer ends in a norm",
        )
    rows, columns = model.patch_embed.patch_size
    return {
        "channels": model.num_features,
        "patch": rows if rows == columns else (rows, columns),
        "prefix_tokens": model.num_prefix_tokens,
    }


def _of_conv(model: Any, entry: ConvEntry) -> dict[str, Any]:
    if hasattr(model, "blocks") or not hasattr(model, "forward_intermediates"):
        raise _misfit(entry, f"{entry.timm} is no convolutional network that gives maps at its strides")
    return {"channels": model.feature_info[stage_of(model, entry)]["num_chs"]}


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in values.items())


def _misfit(entry: TimmEntry, what: str, fix: str = "correct the entry under registry/features") -> DitrError:
    return DitrError(what, code=Code.REGISTRY, where=entry.timm, fix=fix)


def import_timm() -> Any:
    """timm, which imports torchvision, whose compiled operators do not load on every build of torch.

    No feature source uses them, but without their schemas the import alone would fail. Where they do load, torchvision
    defines the schemas itself, and a second definition would abort the process.
    """
    if not _torchvision_operators and not _torchvision_loads():
        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _torchvision_operators.append(library)  # the schemas live as long as their library
    import timm

    return timm


def _torchvision_loads() -> bool:
    """Whether torchvision's operators fit this torch; importing torchvision afterwards loads the same file for free."""
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None, "timm requires torchvision"
    assert spec.origin is not None, "torchvision is a package"
    try:
        torch.ops.load_library(Path(spec.origin).parent / "_C.so")  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True
