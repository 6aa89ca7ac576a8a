"""The code of plug-ins that a run used, copied into its record, which can then be made again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ditr import plugins
from ditr.files import write_text
from ditr.record.folder import Record
from ditr.record.secret_scan import secret_in


def copy_plugins(folder: Record, references: Iterable[str]) -> dict[str, Any]:
    """Writes ``plugins/`` of the record; returns what its provenance says of each module.

    A module that holds what is obviously a secret is not copied, and the reason is noted in its place.

    Parameters
    ----------
    references: as ``module:Class``; those that are not there are passed over.
    """
    facts = {}
    for name, file in sorted({name: file for one in references for name, file in plugins.modules(one).items()}.items()):
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
        facts[name] = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "withheld": secret_in(text)}
        if facts[name]["withheld"] is None:
            copy = folder.plugins / _place(name, file)
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_text(copy, text)
    return facts


def _place(module: str, file: Path) -> Path:
    """Where the module lies below the folder that makes it importable."""
    place = Path(*module.split("."))
    return place / file.name if file.name == "__init__.py" else place.with_suffix(".py")
