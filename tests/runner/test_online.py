"""A run whose maps are computed in the step: from the command's spec to its result, stopped in between."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ditr.data.batch import collate
from ditr.data.dataset import Dataset
from ditr.paths import cache_dir, project_dir
from ditr.progress import Progress, silent
from ditr.record.folder import Record
from ditr.record.views.headline import headline
from ditr.record.views.teller import Teller
from ditr.runner.evaluate_checkpoint import evaluate_checkpoint
from ditr.runner.host import Host
from ditr.runner.inputs import Inputs, Selection, prepare
from ditr.runner.plan import plan
from ditr.runner.run import run_all
from ditr.runner.stop import StopSignal
from ditr.spec.load import LoadedSpec, load_spec
from ditr.spec.registry import Registry

REGISTRY = Registry()
CPU = torch.device("cpu")
SMALL = (
    "dataset.name=synthrooms_tiny",
    "checkpoint=null",
    "model.voxel_size_m=0.2",
    "features.input_size=[112, 154]",
    "schedule.epochs=1",
    "schedule.batch_size=1",
    "execution.workers=0",
    "tracking.mlflow=false",
)
JITTERED = ("features.mode=online", "features.augmentation={}")


def load(*overrides: str, arm: str = "fpn_inject") -> LoadedSpec:
    return load_spec(project_dir() / "specs" / f"{arm}.yaml", registry=REGISTRY, overrides=[*SMALL, *overrides])


def host(stop: StopSignal, *, progress: Progress = silent) -> Host:
    return Host(
        registry=REGISTRY,
        progress=progress,
        say=[].append,
        stop=stop,
        draw=lambda folder, found: None,
        teller=Teller((), say=print),
    )


def go(runs: Path, *overrides: str, stop_after_a_step: bool = False) -> Record:
    """One session of the run; it may be interrupted in the middle of its only epoch."""

    def interrupt(what: str, done: int, total: int) -> None:
        if what.startswith("epoch") and done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    planned = plan([load(*overrides)], registry=REGISTRY, runs=runs, force=False)
    with StopSignal() as stop:
        using = host(stop, progress=interrupt if stop_after_a_step else silent)
        (outcome,) = run_all(planned, host=using)
    assert outcome.error is None
    assert outcome.interrupted is stop_after_a_step
    return planned[0].folder


def prepared(*overrides: str) -> Inputs:
    spec = load(*overrides).spec
    return prepare(spec, seed=0, registry=REGISTRY, device=CPU, progress=silent, say=[].append)


def losses(folder: Record) -> list[float]:
    return [row["metrics"]["train/loss"] for row in folder.logged() if "train/loss" in row["metrics"]]


def facts(folder: Record) -> dict[str, Any]:
    return dict(json.loads(folder.provenance.read_text()))


@pytest.mark.slow
def test_a_run_with_augmented_images_goes_on_after_a_stop_with_the_same_numbers(
    tmp_path: Path, tiny_dataset: Dataset
) -> None:
    stored = set((cache_dir() / "features").rglob("*"))
    whole = go(tmp_path / "whole", *JITTERED)
    go(tmp_path / "stopped", *JITTERED, stop_after_a_step=True)
    stopped = go(tmp_path / "stopped", *JITTERED)
    assert set((cache_dir() / "features").rglob("*")) == stored, "no map is stored"
    assert "maps of (128, 8, 11) computed in each step" in whole.log_file.read_text()
    assert losses(whole) == losses(stopped)
    assert len(losses(whole)) == 2
    ours, theirs = load_file(whole.weights), load_file(stopped.weights)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    of_source = facts(whole)["features"]
    assert (of_source["source"], of_source["mode"]) == ("vit_mini14_reg4", "online")
    assert len(of_source["weights_digest"]) == 32
    assert len(facts(stopped)["earlier_sessions"]) == 1
    result = json.loads(whole.result.read_text())
    assert (result["feature_source"], result["input_size"]) == ("vit_mini14_reg4", "112x154")
    assert result["valid_ratio"] > 0.9

    evaluated = evaluate_checkpoint(
        load(*JITTERED), checkpoint=whole.path, selection=Selection(), host=host(StopSignal()), runs=tmp_path / "eval"
    )
    assert {name: evaluated.result[name] for name in ("ap", "ap50", "ap25", "fusion_2d_ratio")} == {
        name: result[name] for name in ("ap", "ap50", "ap25", "fusion_2d_ratio")
    }


def test_evaluation_frames_and_frames_without_augmentation_have_the_maps_that_would_be_stored(
    tiny_dataset: Dataset,
) -> None:
    stored, online = prepared(), prepared("features.mode=online")
    jittered = prepared(*JITTERED)
    assert stored.features is not None
    assert online.features is not None
    assert stored.features["weights_digest"] == online.features["weights_digest"]
    for index in range(2):
        kept = stored.evaluated[index]
        for inputs in (online, jittered):
            (sample,) = inputs.encode(collate([inputs.evaluated[index]]))
            assert sample.map_hw == kept.map_hw
            torch.testing.assert_close(sample.tokens, kept.tokens, rtol=2e-3, atol=2e-3)
        (trained,) = online.encode(collate([online.train[index]]))
        torch.testing.assert_close(trained.tokens, stored.train[index].tokens, rtol=2e-3, atol=2e-3)
        (other,) = jittered.encode(collate([jittered.train[index]]))
        assert (other.tokens - trained.tokens).abs().max() > 0.1  # type: ignore[operator]
    assert not jittered.evaluated.augmented


def test_what_is_compared_tells_online_runs_and_their_images_apart() -> None:
    plain, jittered = (
        headline(load(*overrides).spec, variant="fpn_inject", seed=0, facts={}) for overrides in ((), JITTERED)
    )
    assert (plain["feature_mode"], plain["image_augmentation"]) == ("stored", "False")
    assert (jittered["feature_mode"], jittered["image_augmentation"]) == ("online", "True")
    assert {name for name in plain if plain[name] != jittered[name]} == {"feature_mode", "image_augmentation"}


def test_a_3d_only_run_reads_no_image_whatever_its_features_say(tiny_dataset: Dataset) -> None:
    spec = load(*JITTERED, arm="baseline").spec
    inputs = prepare(spec, seed=0, registry=REGISTRY, device=CPU, progress=silent, say=[].append)
    sample = inputs.train[0]
    assert (sample.image, sample.tokens, inputs.features, inputs.feature_channels) == (None, None, None, None)
    batch = collate([sample])
    assert inputs.encode(batch) is batch
