"""One frame as a finished run sees it: its weights evaluate that frame again, and what they read is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ditr.catalog import CheckpointFile
from ditr.data.frame_view import FrameView, MapColours
from ditr.errors import Code, DitrError
from ditr.evaluation.instances import MATCH_IOU
from ditr.progress import Progress, silent
from ditr.record.folder import Record
from ditr.runner.evaluate_checkpoint import given_weights, whole_model
from ditr.runner.execution import how, pick_device, settle_to_look
from ditr.runner.inputs import Inputs, Selection, prepare
from ditr.runner.session import assess, use_cores
from ditr.spec.models import Spec
from ditr.spec.registry import Registry
from ditr.spec.resolved_spec import read_resolved

if TYPE_CHECKING:
    import torch

ROUNDING = 1e-4
"""Relative, of scores: how far a frame alone is from the same frame in a batch, with the points that change sides."""


def require_weights(run: Record) -> CheckpointFile:
    """Of the trained model; DitrError if the run has left none, before any data is opened."""
    if not run.weights.is_file():
        fix = (
            f"Train it again: ditr run {run.spec} --force. Or name a run that kept {run.weights.relative_to(run.path)}."
        )
        what = "this run has no weights, so it can see nothing"
        raise DitrError(what, code=Code.CHECKPOINT, where=str(run.path), fix=fix)
    return given_weights(run.path)


def view_frame(
    run: Record, frame_id: str, *, registry: Registry, progress: Progress = silent, say: Callable[[str], None]
) -> tuple[FrameView, float]:
    """As ``run_view``, of the frame with this id in the run's data set, which is made if it is an embedded one.

    Raises
    ------
    DitrError: the run has left no weights or no spec, its data set is not here, or has no such frame.
    """
    from ditr.data.dataset import open_dataset
    from ditr.rooms import make_missing

    weights, spec = require_weights(run), read_resolved(run.spec)
    make_missing(spec.dataset.name, registry=registry, progress=progress)
    dataset = open_dataset(spec.dataset.name, registry=registry)
    frames, _ = dataset.find(frame_id)
    (split,) = (name for name, its in dataset.splits.items() if its is frames)
    selection = Selection(split=split, frames=(frame_id,))
    return run_view(run, weights=weights, spec=spec, selection=selection, registry=registry, progress=progress, say=say)


def run_view(
    run: Record,
    *,
    weights: CheckpointFile,
    spec: Spec,
    selection: Selection,
    registry: Registry,
    progress: Progress,
    say: Callable[[str], None],
) -> tuple[FrameView, float]:
    """What the run's weights make of the one frame of ``selection``, in the way in which every model is evaluated.

    With it the score from which on the run's precision and recall are in best balance; inf where none of its
    predictions matches anything; less by ``ROUNDING``, for the frame was one of a batch then and is alone here.

    Parameters
    ----------
    weights: those of ``require_weights``.
    spec: the resolved one of the run, as are its data, features and control.
    say: takes a line about what is opened or made, and one if the data set has changed since the run.

    Raises
    ------
    DitrError: the run has no match table, the weights do not fit, or the frame cannot be read.
    """
    from ditr.evaluation.instance_ap import precision_recall
    from ditr.evaluation.match_table import MatchTable

    table = MatchTable.load(run.matches)
    spec, ran = settle_to_look(spec), spec
    if spec.execution != ran.execution:
        say(f"  computed here with {how(spec)}, in the run with {how(ran)}")
    device = pick_device(spec)
    use_cores(device)
    model, _ = whole_model(spec, weights, registry=registry)
    inputs = prepare(spec, seed=0, registry=registry, device=device, progress=progress, say=say, only=selection)
    had = run.read_result().get("dataset_digest") or "unknown"
    if had != inputs.dataset.digest:
        say(f"  not the data of the run: digest {inputs.dataset.digest[:12]}, the run had {had[:12]}")
    found = assess(model.to(device), inputs, spec=_of_one_frame(spec), device=device, progress=progress)
    (view,) = found.views
    best_score = precision_recall(table, threshold=MATCH_IOU).best_score
    return replace(view, features=_features(inputs, spec=spec, device=device)), best_score * (1 - ROUNDING)


def _of_one_frame(spec: Spec) -> Spec:
    """The same, read in this process, and the frame is kept."""
    changes = {
        "execution": spec.execution.model_copy(update={"workers": 0}),
        "tracking": spec.tracking.model_copy(update={"panels": 1}),
    }
    return spec.model_copy(update=changes)


def _features(inputs: Inputs, *, spec: Spec, device: torch.device) -> MapColours | None:
    """Those of the first frame that is evaluated, its control included, and what the points read of them."""
    from ditr.data.batch import Batch
    from ditr.features.map_view import map_colours

    (sample,) = inputs.encode(Batch(samples=(inputs.evaluated[0],)).to(device)).samples
    if sample.tokens is None or spec.read_features is None:
        return None
    camera, sampling = inputs.evaluated.frames.intrinsics_of(0), spec.read_features.sampling
    image_hw = (camera.height, camera.width)
    _, colours = map_colours(sample.tokens, uv=sample.uv, covers_hw=sample.map_hw, image_hw=image_hw, sampling=sampling)
    return colours
