"""Published weights of 2D sources: which file they are in, and from there into the model, every one of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ditr import paths
from ditr.catalog import locate_weights, sha256_of
from ditr.errors import Code, DitrError
from ditr.features.timm_models import import_timm, known
from ditr.spec.entries import NetworkEntry, PretrainedWeights, PythonEntry, TimmEntry
from ditr.spec.models import FileWeights, HubWeights
from ditr.weights.archive import is_archive, require_checksums

Published = PretrainedWeights | HubWeights | FileWeights

_HUB_TIMEOUT_S = 5.0
_HUB_NAMES = ("model.safetensors", "pytorch_model.bin")
_UNUSED = ("head.", "fc_norm.", "attn_pool.")
"""Parts after the tokens, which no map is made of; a file may have them or lack them."""


def weights_file(weights: Published, *, entry: NetworkEntry) -> Path:
    """The user's file, else timm's download; DitrError that says what is wanted where, if neither is to be had."""
    path = locate_weights(weights)
    if path is not None:
        return path
    if isinstance(weights, FileWeights):
        own = paths.project_dir() / weights.path
        fix = "correct features.weights.path in the spec, or put the file there"
        raise DitrError("no such weight file", code=Code.FEATURES, where=str(own), fix=fix)
    if isinstance(entry, PythonEntry):
        raise _missing(weights, of=entry.module, entry=entry, reason="a class of one's own has no download")
    path = _download(weights, entry=entry)
    if isinstance(weights, PretrainedWeights) and weights.sha256 not in (None, sha256_of(path)):
        reason = f"timm's own has sha256 {sha256_of(path)}, and the entry pins {weights.sha256}"
        raise _missing(weights, of=entry.timm, entry=entry, reason=reason)
    return path


def set_weights(model: nn.Module, path: Path, *, entry: TimmEntry) -> None:
    """Sets every weight of the model.

    The file has timm's names or the publisher's, where timm knows these; it is safetensors or torch's own format, of
    which only tensors are read, never objects that could run code.

    Raises
    ------
    DitrError: the file cannot be read so, or does not set each weight of the model.
    """
    try:
        _set(model, path)
    except Exception as error:  # what a foreign file can raise is not to be listed; all of it means the same
        url = entry.weights.url if isinstance(entry.weights, PretrainedWeights) else ""
        raise DitrError(
            f"these are no weights of {entry.timm} ({_first_line(error)})",
            code=Code.FEATURES,
            where=str(path),
            fix=f"put a file of that model's weights there{f', such as {url}' if url else ''}",
        ) from error


def _download(weights: PretrainedWeights | HubWeights, *, entry: TimmEntry) -> Path:
    timm = import_timm()
    config = timm.get_pretrained_cfg(known(entry), allow_unregistered=True)
    if entry.timm_args or config is None or not (config.hf_hub_id or config.url):
        raise _missing(weights, of=entry.timm, entry=entry, reason="timm has none to download for this model")
    try:
        if not config.hf_hub_id:
            from timm.models._hub import download_cached_file

            return Path(download_cached_file(config.url))
        return _from_hub(config.hf_hub_id, names=(config.hf_hub_filename,) if config.hf_hub_filename else _HUB_NAMES)
    except Exception as error:  # whatever the HTTP client raises, it is told as the reason
        raise _missing(weights, of=entry.timm, entry=entry, reason=_first_line(error)) from error


def _from_hub(repository: str, *, names: tuple[str, ...]) -> Path:
    """The cached file, else its download, after one request that finds out whether it can work.

    The hub's own retries would take most of a minute without a network.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    for name in names:
        cached = try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    for name in names:
        try:
            get_hf_file_metadata(hf_hub_url(repository, name), timeout=_HUB_TIMEOUT_S)
        except EntryNotFoundError:
            continue
        return Path(hf_hub_download(repository, name))
    raise FileNotFoundError(f"{repository} has none of {', '.join(names)}")


def _set(model: nn.Module, path: Path) -> None:
    import_timm()
    from timm.models import load_state_dict

    if is_archive(path):
        require_checksums(path)
    state: dict[str, Tensor] = load_state_dict(str(path), device="cpu", weights_only=True)
    if "storage_tokens" in state:
        _drop_zero_biases(state, model)
    of_family: Any = sys.modules[type(model).__module__]
    if hasattr(of_family, "checkpoint_filter_fn"):  # where timm knows the publisher's names
        state = of_family.checkpoint_filter_fn(state, model)
    found = model.load_state_dict(state, strict=False)
    config: Any = model.pretrained_cfg
    heads = config["classifier"] or ()
    unused = (*_UNUSED, *(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads)))
    for what, names in (("lacks", found.missing_keys), ("has beside the model's", found.unexpected_keys)):
        if names := [name for name in names if not name.startswith(unused)]:
            raise ValueError(f"it {what} {len(names)} entries, such as {names[0]}")


def _drop_zero_biases(state: dict[str, Tensor], model: nn.Module) -> None:
    """DINOv3's publisher keeps biases of queries, keys and values that are zero; timm's models have none for them.

    timm would drop them unseen whatever they are. Those of keys never act: the publisher masks them.
    """
    if any(name.endswith("q_bias") for name, _ in model.named_parameters()):
        return
    for name in [name for name in state if name.endswith("qkv.bias")]:
        queries, _, values = state.pop(name).chunk(3)
        if queries.any() or values.any():
            raise ValueError(f"{name} is not zero; a timm name with _qkvb has such biases")


def _missing(weights: PretrainedWeights | HubWeights, *, of: str, entry: NetworkEntry, reason: str) -> DitrError:
    terms = f"accept the terms ({entry.licence}) at {entry.licence_url}, then " if entry.licence_url else ""
    own = "name a file in the spec (features.weights: {kind: file, path: ...})"
    if isinstance(weights, PretrainedWeights):
        folder = paths.weights_dir()
        get = (
            f"download {weights.url} to {folder / weights.file}" if weights.url else f"put {weights.file} into {folder}"
        )
        fix = f"{terms}{get} (or set DITR_WEIGHTS to the folder that holds {weights.file}), or {own}"
        where = str(folder / weights.file)
    else:
        fix, where = f"{terms}connect this machine to the network, or {own}", "features.weights"
    return DitrError(
        f"the weights of {of} are not on this machine and could not be downloaded ({reason})",
        code=Code.FEATURES,
        where=where,
        fix=f"{fix}; the specs directly under specs/ use an embedded source and need no download",
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
