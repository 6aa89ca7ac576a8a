"""What a weight file is, from its names and shapes; no model is needed and nothing of it is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from ditr.catalog import sha256_of
from ditr.errors import DitrError
from ditr.spec.models import BackboneSpec
from ditr.weights.backbone import backbone_in, backbone_shapes
from ditr.weights.checks import not_finite, require_fit, require_tensors, some
from ditr.weights.file import Container, WeightFile, read_weight_file
from ditr.weights.names import ADDED_PARTS, PLAIN_PARTS, added_parts, by_group, first_word, prefix_in
from ditr.weights.saving import DIGEST

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, kw_only=True)
class GroupContent:
    """The weights of one part."""

    group: str
    entries: int
    parameters: int
    """Numbers in them, without the statistics of norms."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a weight file is and holds."""

    path: Path
    size_bytes: int
    sha256: str
    container: Container
    checked: str | None
    """What shows that no byte has changed; None where nothing in the file does."""
    format: Literal["mask3d", "esam", "ditr"] | None
    """What ``checkpoint.format`` would be; None for weights of something else."""
    reason: str
    """How that is known."""
    key_prefix: str
    """What ``checkpoint.key_prefix`` would be."""
    groups: tuple[GroupContent, ...]
    not_finite: tuple[str, ...]
    """Entries with NaN or infinite values."""
    backbone: BackboneSpec | None
    """The sizes of the backbone, by its norms."""
    refusal: DitrError | None
    """What loading would say against the file, with the backbone's sizes in the spec."""
    fusion: tuple[str, ...]
    """The added parts of a fused model, in words."""


def describe(path: Path) -> Description:
    """Reads the whole file and says what it is.

    Raises
    ------
    DitrError: see ``read_weight_file``.
    """
    file = read_weight_file(path)
    prefix = prefix_in(tuple(file.tensors)) or ""
    tensors = {name.removeprefix(prefix): tensor for name, tensor in file.tensors.items()}
    format, reason = _recognise(file, tensors)
    backbone = backbone_in({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    return Description(
        path=path,
        size_bytes=path.stat().st_size,
        sha256=sha256_of(path),
        container=file.container,
        checked=file.checked,
        format=format,
        reason=reason,
        key_prefix=prefix,
        groups=_groups(tensors, added=_added(file, tensors)),
        not_finite=not_finite(file.tensors),
        backbone=backbone,
        refusal=_refusal(file, tensors, format=format, backbone=backbone),
        fusion=_fusion(tensors),
    )


def _recognise(file: WeightFile, tensors: Mapping[str, Tensor]) -> tuple[Literal["mask3d", "esam", "ditr"] | None, str]:
    groups = by_group(tensors, added=_added(file, tensors))
    if not tensors:
        return None, "there are no tensors at the top or under state_dict"
    if "backbone" not in groups:
        return None, f"no name holds 'backbone.'; names begin with {_first_parts(tuple(tensors))}"
    if added := [part for part in _added(file, tensors) if part in groups]:
        return "ditr", f"it has ditr's {' and '.join(added)}"
    if not {"pool", "decoder"} & groups.keys():
        return "mask3d", "it has a backbone, and no pool and no decoder of ESAM's"
    if lacks := [part for part in PLAIN_PARTS if part not in groups]:
        return None, f"it has a backbone and no {lacks[0]}"
    if "other" in groups:
        more = _first_parts(groups["other"])
        return "esam", f"it has backbone, pool, decoder and more, which the single-view model has not: {more}"
    if file.container == "safetensors":
        return "ditr", "it has backbone, pool and decoder, as safetensors"
    return "esam", "it has backbone, pool and decoder, in a torch file"


def _added(file: WeightFile, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What fusions have added; in a file that ditr wrote, all that is not of the 3D-only model."""
    return added_parts(tensors) if DIGEST in file.contents else ADDED_PARTS


def _first_parts(names: tuple[str, ...]) -> str:
    counts = Counter(first_word(name) for name in names)
    return some([f"{part} ({count})" for part, count in counts.most_common()])


def _groups(tensors: Mapping[str, Tensor], *, added: Sequence[str]) -> tuple[GroupContent, ...]:
    return tuple(
        GroupContent(
            group=group,
            entries=len(names),
            parameters=sum(tensors[name].numel() for name in names if not name.endswith(_STATISTICS)),
        )
        for group, names in by_group(tensors, added=added).items()
    )


def _refusal(
    file: WeightFile, tensors: Mapping[str, Tensor], *, format: str | None, backbone: BackboneSpec | None
) -> DitrError | None:
    """Of pool, decoder and fusion the sizes are taken as they are; those of the spec decide when it loads them."""
    if format is None:
        return None
    stored = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wanted = {name: shape for name, shape in stored.items() if not name.startswith("backbone.")}
    try:
        require_tensors(file)
        require_fit(stored, wanted | backbone_shapes(backbone or BackboneSpec()), path=file.path, format=format)
    except DitrError as error:
        return error
    return None


def _fusion(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    words = []
    projections = {
        name.split(".")[2].removeprefix("stride"): tensor
        for name, tensor in tensors.items()
        if name.startswith("injection.projections.") and name.endswith(".linear.weight") and tensor.ndim
    }
    if projections:
        channels = next(iter(projections.values())).shape[-1]
        norm = ", with norms" if any(name.startswith("injection.") and ".norm." in name for name in tensors) else ""
        words.append(f"injection of {channels} channels at strides {', '.join(projections)}{norm}")
    adapter = tensors.get("bifusion.adapt_2d.0.weight")
    if adapter is not None and adapter.ndim == 2:
        words.append(f"bifusion of {adapter.shape[1]} channels, width {adapter.shape[0]}")
    stem = tensors.get("stem.projection.linear.weight")
    if stem is not None and stem.ndim == 2:
        words.append(f"stem fusion of {stem.shape[1]} channels")
    return tuple(words)
