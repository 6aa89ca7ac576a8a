"""The code of fusion parts that are not built in: what a record notes of it, and whether it is still the same."""

from __future__ import annotations

from typing import Any

from ditr.record.folder import Record
from ditr.spec.fusion_table import digest_of, reference_of
from ditr.spec.models import Spec


def fusion_code(spec: Spec) -> dict[str, Any]:
    """By name of the part: ``module:Class``, and a digest of its code."""
    return {name: {"reference": reference_of(name), "digest": digest_of(name)} for name in spec.fusion.own_parts}


def changed_parts(run: Record, spec: Spec) -> list[str]:
    """A sentence about each part of a run whose code is another now than when it ran.

    Parameters
    ----------
    spec: the run's, as it was resolved.
    """
    noted, now = (run.read_provenance() or {}).get("fusion_code") or {}, fusion_code(spec)
    return [
        f"the code of the fusion part {name} ({code['reference']}) is not that of {run.path.name}: it has changed since"
        for name, code in now.items()
        if name in noted and noted[name]["digest"] != code["digest"]
    ]
