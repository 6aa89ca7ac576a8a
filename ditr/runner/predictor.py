"""Frames as a trained model sees them: what `ditr view` shows of one, and `ditr predict` writes of many."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from ditr.data.frame_view import FrameView, MapColours
from ditr.evaluation.instances import Instances
from ditr.paths import portable_path
from ditr.progress import Progress
from ditr.runner.evaluate_checkpoint import whole_model
from ditr.runner.execution import how, pick_device, settle_to_look
from ditr.runner.inputs import Selection, prepare
from ditr.runner.session import use_cores
from ditr.runner.trained_model import TrainedModel
from ditr.runner.unchanged import other_features
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    from ditr.data.batch import Sample


@dataclass(frozen=True, kw_only=True)
class PredictedFrame:
    """One frame, and what the model says of it."""

    index: int
    """Its place among the predictor's frames."""
    view: FrameView
    """With the best prediction of each point, and the 2D features that the model read."""
    found: Instances
    """All predictions, whose masks may overlap."""
    instance_ids: np.ndarray | None
    """(N,) int64 id on disk of the thing that each point is of, -1 = of none; None where nothing is annotated."""
    infer_ms: float
    """From the copy to the device over 2D features if online, forward pass and post-processing to the instances."""


class Predictor:
    """A trained model in front of frames of one data set, opened and ready.

    Every frame is read by itself, in the way in which every model is evaluated: what it says of a frame does not depend
    on the frames beside it.

    Parameters
    ----------
    selection: of the frames of ``dataset``, which is made if it is an embedded one, as are the 2D features that it
        lacks.
    say: takes a line about what is opened or made, and one each if the data set of the training, or what makes its 2D
        features, has changed since.

    Raises
    ------
    DitrError: the weights do not fit the spec, or the data set is not here or has no such frame.
    """

    def __init__(
        self,
        trained: TrainedModel,
        *,
        dataset: str,
        selection: Selection,
        registry: Registry,
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        ran = trained.spec
        spec = settle_to_look(ran.model_copy(update={"dataset": ran.dataset.model_copy(update={"name": dataset})}))
        if spec.execution != ran.execution:
            say(f"  computed here with {how(spec)}, in the run with {how(ran)}")
        for change in trained.changes:
            say(f"  {change}")
        self._device = pick_device(spec)
        use_cores(self._device)
        model, _ = whole_model(spec, trained.weights, registry=registry)
        self._inputs = prepare(
            spec, seed=0, registry=registry, device=self._device, progress=progress, say=say, only=selection
        )
        self._model, self._spec = model.to(self._device), spec
        self.trained = trained
        self.dataset = self._inputs.dataset
        self.frames = self._inputs.evaluated.frames
        had, has = trained.dataset_digest, self.dataset.digest
        for line in other_features(trained.features, self._inputs.features):
            say(f"  {line}")
        if had is not None and dataset == ran.dataset.name and had != has:
            say(f"  not the data of the run: digest {has[:12]}, the run had {had[:12]}")

    def __len__(self) -> int:
        return len(self.frames)

    def facts(self) -> dict[str, Any]:
        """With what and of what frames predictions are, as plain values."""
        trained = self.trained
        return {
            "model": trained.name,
            "weights": {"file": portable_path(trained.weights.path), "sha256": trained.weights.sha256},
            "spec": self._spec.name,
            "features": self._inputs.features,
            "min_score": trained.best_score if isfinite(trained.best_score) else None,
            "dataset": self.dataset.name,
            "dataset_digest": self.dataset.digest,
            "split": self._inputs.split,
            "frames": list(self.frames.ids),
            "engine": self._spec.execution.engine,
            "precision": self._spec.execution.precision,
            "device": str(self._device),
        }

    def predict(self) -> Generator[PredictedFrame]:
        """Frame by frame, in their order; close it where it is not read to its end."""
        from ditr.evaluation.infer import infer
        from ditr.evaluation.instances import predicted_view

        execution, samples = self._spec.execution, self._inputs.evaluated
        inferring = infer(
            self._model,
            samples,
            spec=self._spec.evaluation,
            device=self._device,
            encode=self._inputs.encode,
            workers=min(execution.workers, len(samples) - 1),
            precision=execution.precision,
        )
        with closing(inferring):
            for index, inferred in enumerate(inferring):
                ((sample,), (found,), (reported,)) = inferred.batch, inferred.found, inferred.reported
                view = predicted_view(samples, index, sample=sample, found=found)
                features = self._features(index, inferred.read.samples[0])
                yield PredictedFrame(
                    index=index,
                    view=replace(view, features=features),
                    found=found,
                    instance_ids=_ids_on_disk(sample) if view.labelled else None,
                    infer_ms=reported["infer_ms"],
                )

    def _features(self, index: int, sample: Sample) -> MapColours | None:
        """Those that the model read of the frame, its control included, and what the points read of them."""
        from ditr.features.map_view import map_colours

        if sample.tokens is None or self._spec.read_features is None:
            return None
        camera, sampling = self.frames.intrinsics_of(index), self._spec.read_features.sampling
        image_hw = (camera.height, camera.width)
        _, colours = map_colours(
            sample.tokens, uv=sample.uv, covers_hw=sample.map_hw, image_hw=image_hw, sampling=sampling
        )
        return colours


def _ids_on_disk(sample: Sample) -> np.ndarray:
    targets = sample.targets
    return np.asarray(np.append(targets.ids.numpy(), -1)[targets.instance_of_point.numpy()])
