"""2D feature sources: frozen networks, timm's or the user's, that turn images into maps of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad
from torch.utils.flop_counter import FlopCounterMode

from ditr.catalog import sha256_of, weights_stamp
from ditr.errors import Code, DitrError
from ditr.features.python_source import encode, make_encoder
from ditr.features.timm_models import check, create, stage_of
from ditr.features.weights import set_weights, weights_file
from ditr.spec.entries import NetworkEntry, PythonEntry, TimmEntry, VitEntry
from ditr.spec.feature_maps import map_shape, weights_of
from ditr.spec.models import FeatureSpec, SeededWeights


class FeatureSource:
    """One frozen model that computes in the spec's dtype.

    Of a vision transformer: the patch tokens of the spec's layers, each with the final norm, without class and register
    tokens. Of a convolutional network: the map at the stride that the entry names. Of a class of the user's: what it
    gives.

    Parameters
    ----------
    model: with its weights; it becomes the source's own.
    weights_stamp: what tells its weights from others, as ``catalog.weights_stamp`` words it; None if nobody knows.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        spec: FeatureSpec,
        entry: NetworkEntry,
        device: torch.device,
        weights_stamp: str | None = None,
    ) -> None:
        self.spec = spec
        self.entry = entry
        self.device = device
        self.weights_stamp = weights_stamp
        self.dtype: torch.dtype = getattr(torch, spec.dtype)
        self._taken = [] if isinstance(entry, PythonEntry) else _taken(model, spec, entry)
        # Once, since a copy to a GPU waits for all that it computes.
        self._mean, self._std = (self._rgb(values) for values in (entry.mean, entry.std))
        self._digest = _digest(model)
        of_inputs = model.to(self.dtype) if isinstance(entry, PythonEntry) else _for_inputs(model, spec)
        self.model: Any = of_inputs.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, images: np.ndarray | Tensor) -> Tensor:
        """Maps (B, C, Hp, Wp) float16 on the device, token rows from the top, of (B, H, W, 3) uint8 RGB images.

        Raises DitrError if an image does not fit the canvas that the spec pads to.
        """
        return self.maps(self.prepared(images))

    def prepared(self, images: np.ndarray | Tensor) -> Tensor:
        """What the model sees, (B, 3, h, w) of the spec's ``input_size`` and dtype, normalised by the entry.

        ``resize``: the whole image, whatever its shape, by bilinear interpolation with antialiasing between pixel
        centres (torch's interpolate). ``pad``: the image's own pixels at the top left and zeros, the mean colour, right
        of and below them. A token is a patch of this, so a map covers the image, or the canvas, exactly.
        """
        raw = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))  # a copy torch may own
        pixels = raw.to(self.device).permute(0, 3, 1, 2).float() / 255
        if self.spec.resize == "resize":
            size = self.spec.input_size
            pixels = interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
            return self._normalised(pixels).to(self.dtype)
        right, below = self._margins(pixels)
        return pad(self._normalised(pixels), (0, right, 0, below)).to(self.dtype)

    def maps(self, pixels: Tensor) -> Tensor:
        """Maps (B, C, Hp, Wp) float16 of what ``prepared`` gives; layers one after the other along the channels."""
        channels, rows, columns = map_shape(self.spec, self.entry)
        found = self._intermediates(pixels)
        whole = found[0] if len(found) == 1 else torch.cat(found, dim=1)
        if whole.shape[1:] != (channels, rows, columns):
            raise ValueError(f"maps of {tuple(whole.shape[1:])} where {(channels, rows, columns)} was stated")
        return whole.to(torch.float16)

    def weights_digest(self) -> str:
        """Hex digest of every weight as it was given, so that maps made with other weights can be told apart."""
        return self._digest

    def _intermediates(self, pixels: Tensor) -> list[Tensor]:
        """A map (B, C, Hp, Wp) for each of the layers, in the spec's order."""
        if isinstance(self.entry, PythonEntry):
            return [encode(self.model, pixels, entry=self.entry)]
        norm = isinstance(self.entry, VitEntry)
        ascending = sorted(self._taken)
        found: list[Tensor] = self.model.forward_intermediates(
            pixels, indices=ascending, norm=norm, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )
        return [found[ascending.index(layer)] for layer in self._taken]

    def _margins(self, pixels: Tensor) -> tuple[int, int]:
        """Columns right and rows below that an image lacks of the canvas."""
        assert self.spec.input_size is not None, "a spec of a computed source without an input size does not load"
        (height, width), (of_image, wide) = self.spec.input_size, pixels.shape[2:]
        if of_image > height or wide > width:
            patch = self.entry.patch
            least = [-(-size // patch) * patch for size in (of_image, wide)]
            raise DitrError(
                f"an image of {of_image}x{wide} does not fit into the canvas of {height}x{width} that it is padded to",
                code=Code.FEATURES,
                where="features.input_size",
                fix=f"set features.input_size to {least} or more, or features.resize to resize",
            )
        return width - wide, height - of_image

    def _normalised(self, pixels: Tensor) -> Tensor:
        return (pixels - self._mean) / self._std

    def _rgb(self, values: tuple[float, float, float]) -> Tensor:
        return torch.tensor(values, device=self.device).reshape(1, 3, 1, 1)


def load_source(spec: FeatureSpec, *, entry: NetworkEntry, device: torch.device) -> FeatureSource:
    """The model of ``spec.source``, which is ``entry``, with its weights, frozen.

    Raises DitrError if the entry does not describe timm's model, it lacks a layer that the spec takes, its weights
    are missing, damaged or not to be had, or a class of the user's cannot be loaded. Global random state stays as it
    is.
    """
    weights = weights_of(spec, entry)
    file = None if isinstance(weights, SeededWeights) else weights_file(weights, entry=entry)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed if isinstance(weights, SeededWeights) else 0)
        model = make_encoder(entry, weights=file) if isinstance(entry, PythonEntry) else create(entry)
    if not isinstance(entry, PythonEntry):
        check(model, entry, published=file is not None)
        if file is not None:
            set_weights(model, file, entry=entry)
    stamp = weights_stamp(weights) if file is None else f"sha256 {sha256_of(file)}"
    return FeatureSource(model, spec=spec, entry=entry, device=device, weights_stamp=stamp)


def require_source(spec: FeatureSpec, *, entry: NetworkEntry) -> None:
    """All that ``load_source`` can refuse but damaged weights, without making timm's model; downloads missing weights.

    A class of the user's is made and tried on a grey image: nobody else knows what it gives.
    """
    if isinstance(entry, PythonEntry):
        assert spec.input_size is not None, "a spec of a computed source without an input size does not load"
        source = load_source(spec, entry=entry, device=torch.device("cpu"))
        source.encode(np.full((1, *spec.input_size, 3), 128, dtype=np.uint8))
        return
    weights = weights_of(spec, entry)
    with torch.device("meta"):
        model = create(entry)
    check(model, entry, published=not isinstance(weights, SeededWeights))
    _taken(model, spec, entry)
    if not isinstance(weights, SeededWeights):
        weights_file(weights, entry=entry)


def source_flops(spec: FeatureSpec, *, entry: TimmEntry) -> int:
    """Floating point operations that one image's map takes: two for each multiplication in convolutions, matrix
    products and attention, up to the last layer that is taken. Neither weights nor an image are needed."""
    assert spec.input_size is not None, "a spec of a computed source without an input size does not load"
    with torch.device("meta"), torch.no_grad():
        source: Any = create(entry).eval()
        taken = _taken(source, spec, entry)
        counter = FlopCounterMode(display=False)
        with counter:
            source.forward_intermediates(
                torch.empty(1, 3, *spec.input_size), indices=taken, stop_early=True, intermediates_only=True
            )
    return counter.get_total_flops()


def _taken(model: Any, spec: FeatureSpec, entry: TimmEntry) -> list[int]:
    """Which of timm's intermediate maps are the source's."""
    return _layers(model, spec) if isinstance(entry, VitEntry) else [stage_of(model, entry)]


def _layers(model: Any, spec: FeatureSpec) -> list[int]:
    """The spec's layers counted from the first, which is 0."""
    depth = len(model.blocks)
    taken = [layer + depth if layer < 0 else layer for layer in spec.layers]
    lacking = [spec.layers[index] for index, layer in enumerate(taken) if not 0 <= layer < depth]
    twice = [spec.layers[index] for index, layer in enumerate(taken) if layer in taken[:index]]
    if lacking or twice:
        what = f"there is no layer {lacking[0]}" if lacking else f"layer {twice[0]} is taken twice"
        raise DitrError(
            f"{what}: {spec.source} has {depth} layers, 0 to {depth - 1}, or -{depth} to -1 from the end",
            code=Code.FEATURES,
            where="features.layers",
            fix="name layers that the model has, each once",
        )
    return taken


def _digest(model: nn.Module) -> str:
    digest = xxhash.xxh3_128()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _for_inputs(model: nn.Module, spec: FeatureSpec) -> nn.Module:
    """timm's model for the spec's input size, with all weights in its dtype.

    Position embeddings are resampled here once and in float32, not for every batch in the dtype. What rotary ones are
    made of stays in float32: rounded, positions would move.
    """
    of_timm: Any = model
    if getattr(model, "pos_embed", None) is not None:
        of_timm.set_input_size(img_size=spec.input_size)
    rope = getattr(model, "rope", None)
    kept = {name: buffer.clone() for name, buffer in rope.named_buffers()} if isinstance(rope, nn.Module) else {}
    model = model.to(getattr(torch, spec.dtype))
    for name, buffer in kept.items():
        setattr(rope, name, buffer)
    return model
