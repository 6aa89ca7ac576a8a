"""Names and shapes of a Res16UNet's weights, from its sizes and back (docs/reference/esam.md, State dict).

Kernels lie as MinkowskiEngine has them: (kernel volume, in, out), and (in, out) where the volume is 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from ditr.spec.models import BackboneSpec

Shapes = Mapping[str, tuple[int, ...]]

COUNTER = "num_batches_tracked"
"""How the names of the only entries end that are whole numbers."""
_UP = ("convtr4p16s2", "convtr5p8s2", "convtr6p4s2", "convtr7p2s2")


def backbone_shapes(spec: BackboneSpec) -> dict[str, tuple[int, ...]]:
    """Every entry of the backbone in a state dict of the model, 372 of them at full size."""
    planes, stem = spec.planes, spec.stem_channels
    shapes = {"conv0p1s1.kernel": (125, 3, stem), **_norm("bn0", stem)}
    width = stem
    for stage in range(4):
        shapes |= {f"conv{stage + 1}p{2**stage}s2.kernel": (8, width, width), **_norm(f"bn{stage + 1}", width)}
        shapes |= _block(stage, width, spec=spec)
        width = planes[stage]
    skips = (planes[2], planes[1], planes[0], stem)
    for stage, name, skip in zip(range(4, 8), _UP, skips, strict=True):
        shapes |= {f"{name}.kernel": (8, width, planes[stage]), **_norm(f"bntr{stage}", planes[stage])}
        shapes |= _block(stage, planes[stage] + skip, spec=spec)
        width = planes[stage]
    return {f"backbone.{name}": shape for name, shape in shapes.items()}


def backbone_in(shapes: Shapes) -> BackboneSpec | None:
    """The sizes of the backbone whose weights these are, by its norms, which lie alike in every layout of kernels.

    None where they lack; other entries may still be missing or of another shape.
    """
    norms = ["backbone.bn0.bn.weight", *(f"backbone.block{block}.0.norm1.bn.weight" for block in range(1, 9))]
    widths = [shapes.get(name, ()) for name in norms]
    if any(len(width) != 1 or width[0] < 1 for width in widths):
        return None
    firsts = [name for name in shapes if name.endswith(".norm1.bn.weight")]
    layers = [sum(name.startswith(f"backbone.block{block}.") for name in firsts) for block in range(1, 9)]
    stem, *planes = (width[0] for width in widths)
    return BackboneSpec(planes=tuple(planes), layers=tuple(layers), stem_channels=stem)


def _block(stage: int, width: int, *, spec: BackboneSpec) -> dict[str, tuple[int, ...]]:
    """The residual blocks of a stage, which ``width`` channels enter; a shortcut has weights where these change."""
    out, shapes = spec.planes[stage], dict[str, tuple[int, ...]]()
    for index in range(spec.layers[stage]):
        name = f"block{stage + 1}.{index}"
        shapes |= {f"{name}.conv1.kernel": (27, width, out), **_norm(f"{name}.norm1", out)}
        shapes |= {f"{name}.conv2.kernel": (27, out, out), **_norm(f"{name}.norm2", out)}
        if width != out:
            shapes |= {f"{name}.downsample.0.kernel": (width, out), **_norm(f"{name}.downsample.1", out)}
        width = out
    return shapes


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    vectors = {f"{name}.bn.{entry}": (width,) for entry in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{name}.bn.{COUNTER}": ()}
