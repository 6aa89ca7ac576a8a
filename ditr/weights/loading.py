"""Weights into a model. What must match, matches whole or is an error; what else the file holds is reported."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ditr.weights.checks import (
    require_finite,
    require_fit,
    require_same_kinds,
    require_tensors,
    require_under_prefix,
    some,
)
from ditr.weights.file import file_error, read_weight_file
from ditr.weights.names import ADDED_PARTS, PLAIN_PARTS, added_parts, by_group, first_word, group_of

FORMATS = ("mask3d", "esam", "ditr")


@dataclass(frozen=True, kw_only=True)
class GroupReport:
    """What a file gave one part of the model."""

    group: str
    """backbone, pool, decoder, a part of the fusion by its name, or other."""
    matched: tuple[str, ...]
    """Entries of the model that the file set."""
    missing: tuple[str, ...]
    """Entries of the model that keep their fresh initialisation."""
    unexpected: tuple[str, ...]
    """Entries of the file, by their names there, that the model has no place for."""


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What a file gave the model, in all and by group; groups that neither has are left out."""

    matched: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    by_group: tuple[GroupReport, ...]
    converted: Mapping[str, int]
    """Entries stored in another precision than the model's, by the stored one."""
    checked: str | None
    """What shows that no byte of the file has changed; None where nothing in it does."""

    def lines(self) -> tuple[str, ...]:
        """A line for each group, and one for conversions if there were any."""
        width = max(len(one.group) for one in self.by_group)
        lines = [f"{one.group:<{width}}  {_in_words(one)}" for one in self.by_group]
        if self.converted:
            kinds = ", ".join(f"{count} from {kind}" for kind, count in self.converted.items())
            lines.append(f"{'converted':<{width}}  {kinds}")
        return tuple(lines)


def load_weights(
    model: nn.Module,
    path: Path,
    *,
    format: str,
    key_prefix: str = "",
    entries: int | None = None,
    whole: bool = False,
) -> LoadReport:
    """Set the model's weights from ``path``; the model is unchanged if this raises ``DitrError``.

    Parameters
    ----------
    format: what must match. ``mask3d``: every entry of the backbone, whatever else the file holds but the rest of the
        3D-only model. ``esam``: every entry of the 3D-only model, and nothing of the file is left over. ``ditr``: every
        entry of the 3D-only model, each added part whole or not at all (docs/reference/esam.md, Published weights).
    key_prefix: what the file puts before the model's names.
    entries: how many entries of the 3D-only model the file must set; None does not count them.
    whole: for evaluation: every entry of the model is set, and nothing of the file is left over.
    """
    if format not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}, not {format!r}")
    file = read_weight_file(path)
    require_tensors(file)
    require_under_prefix(file, prefix=key_prefix)
    stored = {name.removeprefix(key_prefix): name for name in file.tensors if name.startswith(key_prefix)}
    wanted = dict(model.state_dict())
    require_fit(
        {name: tuple(file.tensors[there].shape) for name, there in stored.items()},
        {name: tuple(tensor.shape) for name, tensor in wanted.items()},
        path=path,
        format=format,
    )
    matched = {name: file.tensors[there] for name, there in stored.items() if name in wanted}
    require_same_kinds(matched, path=path)
    taken = {stored[name] for name in matched}
    unexpected = tuple(there for there in file.tensors if there not in taken)
    report = _report(wanted, matched, unexpected, key_prefix=key_prefix, checked=file.checked)
    _require_count(report, entries=entries, path=path)
    if whole or format == "esam":
        _require_nothing_left(report, path=path, whole=whole, ours=format == "ditr")
    ready = {name: tensor.to(wanted[name].dtype) for name, tensor in matched.items()}
    require_finite(ready, path=path)
    model.load_state_dict(ready, strict=False)
    return report


def _report(
    wanted: Mapping[str, Tensor],
    matched: Mapping[str, Tensor],
    unexpected: tuple[str, ...],
    *,
    key_prefix: str,
    checked: str | None,
) -> LoadReport:
    missing = tuple(name for name in wanted if name not in matched)
    added = added_parts(wanted)
    grouped = (by_group(matched, added=added), by_group(missing, added=added))
    left: dict[str, list[str]] = defaultdict(list)
    for name in unexpected:
        left[group_of(name.removeprefix(key_prefix), added=added)].append(name)
    converted = Counter(_dtype(tensor) for name, tensor in matched.items() if tensor.dtype != wanted[name].dtype)
    return LoadReport(
        matched=len(matched),
        missing=missing,
        unexpected=unexpected,
        by_group=tuple(
            GroupReport(
                group=group,
                matched=grouped[0].get(group, ()),
                missing=grouped[1].get(group, ()),
                unexpected=tuple(left[group]),
            )
            for group in (*PLAIN_PARTS, *added, "other")
            if left[group] or any(group in part for part in grouped)
        ),
        converted=dict(converted),
        checked=checked,
    )


def _require_count(report: LoadReport, *, entries: int | None, path: Path) -> None:
    found = sum(len(one.matched) for one in report.by_group if one.group in PLAIN_PARTS)
    if entries is not None and found != entries:
        raise file_error(
            f"the file sets {found} entries of the 3D-only model, and its registry entry says {entries}",
            path=path,
            fix="correct `entries` of the registry entry, or name the entry of this file",
        )


def _require_nothing_left(report: LoadReport, *, path: Path, whole: bool, ours: bool) -> None:
    """``ours``: what the model has no place for is of a fusion."""
    if report.unexpected:
        parts = Counter(
            first_word(name) if one.group == "other" else one.group
            for one in report.by_group
            for name in one.unexpected
        )
        named = ", ".join(f"{part} ({count})" for part, count in parts.items())
        raise file_error(
            f"the weights are of another model than this one: {len(report.unexpected)} entries of the file have no "
            f"place in it, of {named}: {some(report.unexpected)}",
            path=path,
            fix="give the spec the `fusion` that the weights were trained with"
            if ours or any(group_of(name) in ADDED_PARTS for name in report.unexpected)
            else "take the weights of the single-view 3D-only model, or set `format` to what the file is",
        )
    if whole and report.missing:
        parts = Counter(first_word(name) for name in report.missing)
        named = ", ".join(f"{part} ({count})" for part, count in parts.items())
        raise file_error(
            f"{len(report.missing)} entries of the model are not in the file, of {named}: {some(report.missing)}; "
            "evaluated as they are, they would be random",
            path=path,
            fix="evaluate with the spec that the weights were trained with",
        )


def _in_words(one: GroupReport) -> str:
    words = []
    if one.matched or one.missing:
        words.append(f"{len(one.matched)} of {len(one.matched) + len(one.missing)} set")
    if one.missing:
        words.append(f"{len(one.missing)} start fresh")
    if one.unexpected:
        words.append(f"{len(one.unexpected)} of the file unused: {some(one.unexpected)}")
    return ", ".join(words)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
