"""2D feature sources: frozen timm models that turn images into maps of tokens."""

from __future__ import annotations

import importlib.util
import pickle
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ditr import paths
from ditr.catalog import locate_weights
from ditr.errors import Code, DitrError
from ditr.spec.entries import PretrainedWeights, VitEntry
from ditr.spec.feature_maps import map_shape, weights_of
from ditr.spec.models import FeatureSpec, SeededWeights

_HUB_TIMEOUT_S = 5.0
_torchvision_operators: list[torch.library.Library] = []


class FeatureSource:
    """One frozen model: the tokens of its last layer after the final norm, without class and register tokens."""

    def __init__(self, model: nn.Module, *, spec: FeatureSpec, entry: VitEntry, device: torch.device) -> None:
        self.spec = spec
        self.entry = entry
        self.device = device
        self._model: Any = model.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, images: np.ndarray | Tensor) -> Tensor:
        """Maps (B, C, Hp, Wp) float32, token rows from the top, of (B, H, W, 3) uint8 RGB images.

        The image is resized to the spec's ``input_size`` whatever its shape, by bilinear interpolation
        with antialiasing between pixel centres (torch's interpolate), and normalised by the entry's mean and std. A
        token is a patch of that input, so the map covers the image exactly.
        """
        channels, rows, columns = map_shape(self.spec, self.entry)
        raw = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))  # a copy torch may own
        pixels = raw.to(self.device).permute(0, 3, 1, 2).float() / 255
        pixels = interpolate(pixels, size=self.spec.input_size, mode="bilinear", antialias=True, align_corners=False)
        tokens = self._model.forward_features((pixels - self._rgb(self.entry.mean)) / self._rgb(self.entry.std))
        patches: Tensor = tokens[:, self.entry.prefix_tokens :]  # (B, T, C)
        return patches.transpose(1, 2).reshape(len(patches), channels, rows, columns)

    def weights_digest(self) -> str:
        """Hex digest of every weight, so that maps made with other weights can be told apart."""
        digest = xxhash.xxh3_128()
        for name, value in sorted(self._model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def _rgb(self, values: tuple[float, float, float]) -> Tensor:
        return torch.tensor(values, device=self.device).reshape(1, 3, 1, 1)


def load_source(spec: FeatureSpec, *, entry: VitEntry, device: torch.device) -> FeatureSource:
    """The model of ``spec.source``, which is ``entry``, with its weights, frozen.

    Raises DitrError if the entry does not describe timm's model, or its weights are missing, damaged or not to be had.
    Global random state stays as it is.
    """
    weights = weights_of(spec, entry)
    model = _seeded(entry, weights) if isinstance(weights, SeededWeights) else _pretrained(entry, weights)
    _check(model, entry)
    return FeatureSource(model, spec=spec, entry=entry, device=device)


def _seeded(entry: VitEntry, weights: SeededWeights) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed)
        return _create(entry)


def _pretrained(entry: VitEntry, weights: PretrainedWeights) -> nn.Module:
    file = locate_weights(weights)
    if file is None:
        _ask_hub(entry, weights)
    try:
        return _create(entry, pretrained=True, file=file)
    except (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise _unloadable(entry, weights, file=file, reason=error) from error


def _ask_hub(entry: VitEntry, weights: PretrainedWeights) -> None:
    """Finds out with one request whether timm's download can work; its own retries would take most of a minute."""
    config = import_timm().get_pretrained_cfg(_known(entry))
    if config is None or not config.hf_hub_id:
        return  # a plain address, which timm asks once
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    file = config.hf_hub_filename or "model.safetensors"
    if isinstance(try_to_load_from_cache(config.hf_hub_id, file), str):
        return
    try:
        get_hf_file_metadata(hf_hub_url(config.hf_hub_id, file), timeout=_HUB_TIMEOUT_S)
    except EntryNotFoundError:
        return  # the hub answers; timm knows the other names that the file may have
    except Exception as error:  # whatever the hub's HTTP client raises, it is told as the reason
        raise _unloadable(entry, weights, file=None, reason=error) from error


def _create(entry: VitEntry, *, pretrained: bool = False, file: Path | None = None) -> nn.Module:
    """timm's model; ``file`` may hold timm's names or, of DINOv2, the publisher's."""
    model: nn.Module = import_timm().create_model(
        _known(entry),
        pretrained=pretrained,
        pretrained_cfg_overlay={"file": str(file)} if file else None,
        num_classes=0,
        dynamic_img_size=True,
        **entry.timm_args,
    )
    return model


def _known(entry: VitEntry) -> str:
    """The entry's timm name, if timm has it."""
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


def _check(model: nn.Module, entry: VitEntry) -> None:
    """The entry's numbers are what maps are shaped and points are placed by, so each has to be the model's own."""
    of_model: Any = model
    patch = of_model.patch_embed.patch_size
    found = {"channels": of_model.num_features, "patch": patch[0], "prefix_tokens": of_model.num_prefix_tokens}
    if isinstance(entry.weights, PretrainedWeights):  # they were trained on images normalised so
        found |= {name: tuple(of_model.pretrained_cfg[name]) for name in ("mean", "std")}
    wrong = {name: value for name, value in found.items() if value != getattr(entry, name)}
    if wrong or patch[0] != patch[1]:
        stated = ", ".join(f"{name}: {getattr(entry, name)}" for name in wrong)
        raise DitrError(
            f"the entry says {stated} of {entry.timm}, which has {', '.join(f'{k}: {v}' for k, v in wrong.items())}",
            code=Code.REGISTRY,
            where=entry.timm,
            fix="correct the entry under registry/features",
        )
    if isinstance(of_model.norm, nn.Identity):
        raise DitrError(
            f"{entry.timm} has its final norm after the pooling of tokens, so its tokens are not normalised",
            code=Code.REGISTRY,
            where=entry.timm,
            fix="name a model whose last layer ends in a norm",
        )


def _unloadable(entry: VitEntry, weights: PretrainedWeights, *, file: Path | None, reason: Exception) -> DitrError:
    if file is not None:
        return DitrError(
            f"these are no weights of {entry.timm} ({_first_line(reason)})",
            code=Code.FEATURES,
            where=str(file),
            fix=f"download {weights.url} again to that path",
        )
    return DitrError(
        f"the weights of {entry.timm} are not on this machine and could not be downloaded ({_first_line(reason)})",
        code=Code.FEATURES,
        where=str(paths.weights_dir() / weights.file),
        fix=f"download {weights.url} to {paths.weights_dir()} (or set DITR_WEIGHTS to the folder that holds"
        f" {weights.file}); the specs directly under specs/ use an embedded source and need no download",
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


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
