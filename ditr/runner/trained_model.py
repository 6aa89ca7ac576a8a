"""The weights of a whole model with the spec that they are of: of a run, or a file and a spec."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ditr.catalog import CheckpointFile
from ditr.errors import Code, DitrError
from ditr.evaluation.instances import MATCH_IOU
from ditr.record.folder import Record
from ditr.runner.evaluate_checkpoint import given_weights
from ditr.runner.fusion_code import changed_parts
from ditr.spec.models import Spec

MIN_SCORE = 0.5
"""From which on predictions of weights are shown of which no evaluation says where precision and recall balance."""
ROUNDING = 1e-4
"""Relative, of scores: how far a frame alone is from the same frame in a batch, with the points that change sides."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """What looks at frames."""

    name: str
    """In titles and results."""
    spec: Spec
    """Resolved: of what the weights are, and which features they read."""
    weights: CheckpointFile
    best_score: float
    """The score from which on precision and recall are in best balance; inf where none of its run's predictions
    matches anything."""
    dataset_digest: str | None
    """Of the data that it was trained on; None where nobody knows."""
    features: dict[str, Any] | None = None
    """What the 2D features of the training were made of, as its provenance has it."""
    changes: tuple[str, ...] = ()
    """A sentence about each fusion part whose code is not that of the training any more."""


def trained_in(run: Record) -> TrainedModel:
    """Of a finished run, with the best score of its own evaluation, less by ``ROUNDING``: that was made in batches.

    Raises
    ------
    DitrError: the run has left no weights, no spec or no match table.
    """
    from ditr.evaluation.instance_ap import precision_recall
    from ditr.evaluation.match_table import MatchTable

    weights, table, spec = require_weights(run), MatchTable.load(run.require_whole(run.matches)), run.read_spec()
    return TrainedModel(
        name=run.path.resolve().name,
        spec=spec,
        weights=weights,
        best_score=precision_recall(table, threshold=MATCH_IOU).best_score * (1 - ROUNDING),
        dataset_digest=run.read_result().get("dataset_digest") or "unknown",
        features=(run.read_provenance() or {}).get("features"),
        changes=tuple(changed_parts(run, spec)),
    )


def trained_elsewhere(file: Path, *, spec: Spec) -> TrainedModel:
    """Of a file of weights, or a run folder whose weights are taken for ``spec``'s.

    Raises
    ------
    DitrError: no such file, or not the weights of a whole model.
    """
    return TrainedModel(
        name=f"{spec.name} with {file.name}",
        spec=spec,
        weights=given_weights(file),
        best_score=MIN_SCORE,
        dataset_digest=None,
    )


def require_weights(run: Record) -> CheckpointFile:
    """Of the trained model; DitrError if the run has left none, before any data is opened."""
    if not run.weights.is_file():
        fix = (
            f"Train it again: ditr run {run.spec} --force. Or name a run that kept {run.weights.relative_to(run.path)}."
        )
        what = "this run has no weights, so it can see nothing"
        raise DitrError(what, code=Code.CHECKPOINT, where=str(run.path), fix=fix)
    return given_weights(run.path)
