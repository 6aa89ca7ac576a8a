"""A planned run as text, from the process that plans to the one that runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ditr.errors import Code, DitrError, in_short
from ditr.files import parse_json
from ditr.record.folder import Record
from ditr.runner.plan import PlannedRun
from ditr.spec.models import Spec


def job_text(run: PlannedRun) -> str:
    """A planned run as JSON, for the process that runs it."""
    return json.dumps(
        {
            "spec": run.spec.model_dump(mode="json"),
            "source": str(run.source),
            "overrides": list(run.overrides),
            "spec_hash": run.spec_hash,
            "key": run.key,
            "variant": run.variant,
            "folder": str(run.folder.path),
            "seed": run.seed,
            "status": run.status,
        }
    )


def job_from(text: str) -> PlannedRun:
    """The planned run that ``job_text`` wrote; where its values come from, whoever planned it has looked at.

    Raises
    ------
    DitrError: nothing of the kind was written there.
    """
    try:
        facts: dict[str, Any] = parse_json(text.encode(errors="surrogatepass"))
        facts["spec"] = Spec.model_validate_json(json.dumps(facts["spec"]))
        facts |= {"origins": {}, "source": Path(facts["source"]), "folder": Record(Path(facts["folder"]))}
        return PlannedRun(**facts | {"overrides": tuple(facts["overrides"])})
    except (KeyError, TypeError, ValueError) as error:
        what = f"this is no job of ditr run ({in_short(error)})"
        raise DitrError(what, code=Code.RUN, where="standard input", fix="call ditr run, which starts jobs") from error
