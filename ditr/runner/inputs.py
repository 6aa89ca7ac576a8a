"""Everything a run reads: the device, the data set, the 2D features, the model with its starting weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ditr.catalog import CheckpointFile, locate_checkpoint
from ditr.errors import Code, DitrError
from ditr.progress import Progress
from ditr.runner.feature_inputs import FeatureInputs, feature_inputs, sample_set
from ditr.seeds import derive_seed
from ditr.spec.execution import engine_of
from ditr.spec.models import Spec
from ditr.spec.registry import Registry

if TYPE_CHECKING:
    import torch

    from ditr.data.batch import Batch
    from ditr.data.dataset import Dataset
    from ditr.data.samples import SampleSet
    from ditr.data.scannet_sv import FrameSet
    from ditr.model.esam import EsamSingleView
    from ditr.weights.loading import LoadReport


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The frames of an evaluation without a training."""

    split: Literal["train", "val"] = "val"
    frames: int | tuple[str, ...] | None = None
    """The first so many of the split, or those with these ids; None all."""
    scored: bool = True
    """Whether they are held against their labels, which all of them must have then."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What one run trains on and evaluates."""

    dataset: Dataset
    train: SampleSet | None
    """None in an evaluation without a training."""
    evaluated: SampleSet
    split: str
    """Of the evaluated frames."""
    split_frames: int
    """Frames of that split, evaluated or not."""
    feature_channels: int | None
    """None in a 3D-only run."""
    features: dict[str, Any] | None
    """What the feature maps are made of; None in a 3D-only run."""
    encode: Callable[[Batch], Batch]
    """Gives a batch on the device the maps that are computed online."""
    excluded: tuple[str, ...]
    """Ids of broken frames that were left out, as the spec asks for."""

    @property
    def trained_on(self) -> SampleSet:
        """Of a run."""
        assert self.train is not None, "an evaluation trains on nothing"
        return self.train

    def steps_of_an_epoch(self, spec: Spec) -> int:
        """Of a run."""
        return math.ceil(len(self.trained_on) / spec.schedule.batch_size)


@dataclass(frozen=True, kw_only=True)
class LoadedWeights:
    """A file, and what it gave the model."""

    file: CheckpointFile
    report: LoadReport

    def lines(self) -> tuple[str, ...]:
        """The file, then what it gave each part of the model."""
        file = self.file
        head = f"{file.format} weights {file.path.name}, sha256 {file.sha256[:12]}: {self.report.matched} entries set"
        return (head, *(f"  {line}" for line in (*self.report.lines(), *self.doubts())))

    def doubts(self) -> tuple[str, ...]:
        """A line where nothing shows that the file is as it was made: no pin, no checksums, no digest in it."""
        if self.file.pinned or self.report.checked:
            return ()
        return (f"nothing shows whether the file is damaged; what pins it is  sha256: {self.file.sha256}",)


def prepare(
    spec: Spec,
    *,
    seed: int,
    registry: Registry,
    device: torch.device,
    progress: Progress,
    say: Callable[[str], None],
    only: Selection | None = None,
) -> Inputs:
    """Opens the data set, checks its files, and makes what is missing of it and of its stored features.

    A 3D-only run touches no features. A run trains and is evaluated on the validation split; ``only`` evaluates, and
    then features are made for no other frames.
    """
    from ditr.data_check.screening import open_screened
    from ditr.features.controls import map_reader

    began = time.monotonic()
    screened = open_screened(spec.dataset, registry=registry, progress=progress)
    dataset = screened.dataset
    sizes = " + ".join(str(len(frames)) for frames in dataset.splits.values())
    say(f"  data: {dataset.name}, {sizes} frames, {_took(began)}")
    if screened.excluded:
        count = len(screened.excluded)
        say(f"  left out: {count} broken frame{'' if count == 1 else 's'}, named in provenance.json")
    _require_labels(dataset, only)
    split, whole_split, evaluated = _selected(dataset, only or Selection())
    began = time.monotonic()
    control = spec.read_features.control if spec.read_features else "none"
    read = whole_split if control in ("shuffled", "mean") else evaluated
    frames = (dataset.train, read) if only is None else (read,)
    features = feature_inputs(spec, frames=frames, dataset=dataset, registry=registry, device=device, progress=progress)
    say(f"  2D features: {_in_words(spec, features, took=_took(began))}")

    def samples(frames: FrameSet, *, of: FrameSet, augmented: bool) -> SampleSet:
        reader = map_reader(features.maps, control=control, split=of.ids) if features.maps else None
        return sample_set(frames, spec=spec, seed=seed, features=features, augmented=augmented, read=reader)

    return Inputs(
        dataset=dataset,
        train=None if only else samples(dataset.train, of=dataset.train, augmented=True),
        evaluated=samples(evaluated, of=whole_split, augmented=False),
        split=split,
        split_frames=len(whole_split),
        feature_channels=features.channels,
        features=features.facts,
        encode=features.encode,
        excluded=screened.excluded,
    )


def build_model(
    spec: Spec, *, seed: int, registry: Registry, feature_channels: int | None
) -> tuple[EsamSingleView, LoadedWeights | None]:
    """The model on the CPU, initialised from the seed, then from the checkpoint; None where there is no checkpoint."""
    model = fresh_model(spec, seed=seed, feature_channels=feature_channels)
    if spec.checkpoint is None:
        return model, None
    return model, load_file(model, locate_checkpoint(spec.checkpoint, registry=registry))


def fresh_model(spec: Spec, *, seed: int, feature_channels: int | None) -> EsamSingleView:
    """The model on the CPU, initialised from the seed; the spec names its engine."""
    import torch

    from ditr.model.esam import EsamSingleView

    torch.manual_seed(derive_seed(seed, "init"))
    return EsamSingleView(
        spec.model,
        fusion=spec.fusion,
        feature_channels=feature_channels,
        sampling=spec.read_features.sampling if spec.read_features else "bilinear",
        query_fraction=spec.loss.query_fraction,
        engine=engine_of(spec),
    )


def load_file(model: EsamSingleView, file: CheckpointFile, *, whole: bool = False) -> LoadedWeights:
    """Sets the weights that the file has; with ``whole`` they must be all of the model's, and all of the file's."""
    from ditr.weights.loading import load_weights

    report = load_weights(
        model, file.path, format=file.format, key_prefix=file.key_prefix, entries=file.entries, whole=whole
    )
    return LoadedWeights(file=file, report=report)


def _require_labels(dataset: Dataset, only: Selection | None) -> None:
    if only is None:
        dataset.require_labels("train")
    if only is None or only.scored:
        dataset.require_labels("val" if only is None else only.split)


def _selected(dataset: Dataset, selection: Selection) -> tuple[str, FrameSet, FrameSet]:
    """Name of the split, all its frames, and those of them to evaluate.

    Raises
    ------
    DitrError: a frame that is named is not among them, as broken ones are not where they are left out.
    """
    split, wanted = dataset.train if selection.split == "train" else dataset.val, selection.frames
    if wanted is None:
        return selection.split, split, split
    ids = split.ids[:wanted] if isinstance(wanted, int) else wanted
    if lacking := sorted(set(ids) - set(split.ids)):
        what = f"{selection.split} has no frame {lacking[0]} that can be evaluated"
        fix = f"Name another frame; `ditr data check {dataset.name}` lists broken ones."
        raise DitrError(what, code=Code.DATASET, where=str(dataset.root), fix=fix)
    return selection.split, split, split.without(frozenset(split.ids) - frozenset(ids))


def _in_words(spec: Spec, features: FeatureInputs, *, took: str) -> str:
    if spec.read_features is None or features.facts is None:
        return "none made or read, there is no fusion"
    how = " computed in each step" if features.online else ""
    how += {
        "none": "",
        "zero": ", read as zeros",
        "shuffled": ", each frame reads another's",
        "mean": ", all frames read their mean",
    }[spec.read_features.control]
    what = f"{features.channels} channels a point" if features.per_point else f"maps of {features.shape}"
    return f"{spec.read_features.source}, {what}{how}, {took}"


def _took(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"
