"""Every kind of 2D source reaches the samples of a run: with its map, what that covers, and what it is made of."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ditr import paths
from ditr.data.batch import collate
from ditr.data.dataset import Dataset
from ditr.data.samples import SampleSet
from ditr.errors import DitrError
from ditr.progress import silent
from ditr.runner.inputs import Inputs, Selection, prepare
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

CPU = torch.device("cpu")
ENTRY = """
kind: precomputed
path: {path}
files: "{{id}}.pt"
channels: 3
rows: 5
columns: 7
covers: [490, 686]
licence: none
"""
Write = Callable[[str], None]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    folder = tmp_path / "registry"
    shutil.copytree(paths.registry_dirs()[0], folder)
    (folder / "features" / "foreign.yaml").write_text(ENTRY.format(path=tmp_path / "maps"))
    return Registry(folder)


@pytest.fixture
def write(tmp_path: Path, tiny_dataset: Dataset) -> Write:
    (tmp_path / "maps").mkdir()
    return lambda frame_id: torch.save(map_of(frame_id), tmp_path / "maps" / f"{frame_id}.pt")


def map_of(frame_id: str) -> Tensor:
    return torch.full((3, 5, 7), float(sum(map(ord, frame_id)) % 100))


def inputs_of(registry: Registry, *overrides: str, only: Selection | None = None) -> Inputs:
    small = ["dataset.name=synthrooms_tiny", "checkpoint=null", *overrides]
    spec = load_spec(paths.project_dir() / "specs/bifusion.yaml", registry=registry, overrides=small).spec
    return prepare(spec, seed=0, registry=registry, device=CPU, progress=silent, say=[].append, only=only)


def test_precomputed_maps_are_read_as_they_are_and_cover_what_their_entry_says(
    registry: Registry, write: Write, tiny_dataset: Dataset
) -> None:
    for frame_id in (*tiny_dataset.train.ids, *tiny_dataset.val.ids):
        write(frame_id)
    inputs = inputs_of(registry, "features={source: foreign}", "features.input_size=null")
    assert inputs.feature_channels == 3
    assert inputs.features is not None
    assert {name: inputs.features[name] for name in ("source", "mode")} == {"source": "foreign", "mode": "stored"}
    for samples in (inputs.train, inputs.evaluated):
        (sample,) = inputs.encode(collate([samples[1]]))
        assert sample.map_hw == (490, 686)
        assert torch.equal(sample.tokens, map_of(sample.frame_id).half())  # type: ignore[arg-type]


def test_an_evaluation_needs_the_maps_of_its_own_frames_alone(
    registry: Registry, write: Write, tiny_dataset: Dataset
) -> None:
    write(tiny_dataset.val.ids[0])
    foreign = ("features={source: foreign}", "features.input_size=null")
    assert inputs_of(registry, *foreign, only=Selection(frames=1)).evaluated[0].tokens is not None
    with pytest.raises(DitrError, match="no precomputed 2D feature map"):
        inputs_of(registry, *foreign)


@pytest.mark.parametrize("mode", ["stored", "online"])
def test_a_padded_map_covers_its_canvas_in_both_modes(registry: Registry, tiny_dataset: Dataset, mode: str) -> None:
    padded = ("features.resize=pad", "features.input_size=[490, 644]", f"features.mode={mode}")
    inputs = inputs_of(registry, *padded, only=Selection(frames=1))
    (sample,) = inputs.encode(collate([inputs.evaluated[0]]))
    assert sample.map_hw == (490, 644)
    assert sample.tokens is not None
    assert sample.tokens.shape == (128, 35, 46)


def test_zero_features_reach_samples_in_place_of_the_maps(
    registry: Registry, write: Write, tiny_dataset: Dataset
) -> None:
    for frame_id in (*tiny_dataset.train.ids, *tiny_dataset.val.ids):
        write(frame_id)
    inputs = inputs_of(registry, "features={source: foreign, control: zero}", "features.input_size=null")
    for samples in (inputs.train, inputs.evaluated):
        tokens = samples[0].tokens
        assert tokens is not None
        assert not tokens.any()
        assert samples[0].uv_valid.any(), "points still read them"


def test_an_evaluation_with_mean_features_needs_no_map_of_the_training(
    registry: Registry, write: Write, tiny_dataset: Dataset
) -> None:
    for frame_id in tiny_dataset.val.ids:
        write(frame_id)
    mean = ("features={source: foreign, control: mean}", "features.input_size=null")
    samples = inputs_of(registry, *mean, only=Selection(frames=1)).evaluated
    expected = sum(map_of(frame_id) for frame_id in tiny_dataset.val.ids) / len(tiny_dataset.val)  # type: ignore[arg-type]
    assert torch.equal(tokens_of(samples, 0), expected.half()), "of the whole split"


def test_shuffled_features_are_those_of_another_scene_of_the_split(registry: Registry, write: Write) -> None:
    (registry.folders[0] / "datasets" / "pairs.yaml").write_text(
        "{kind: synthrooms, seed: 0, first_scene: 9100, train: {scenes: 2, frames: 1}, val: {scenes: 2, frames: 2},"
        " texture_share: 0.4}"
    )
    pairs = ("dataset.name=pairs", "features={source: foreign, control: shuffled}", "features.input_size=null")
    val = [f"scene{scene}_00_{number}" for scene in (9102, 9103) for number in (0, 200)]
    for frame_id in (*val, "scene9100_00_0", "scene9101_00_0"):
        write(frame_id)
    spec = load_spec(
        paths.project_dir() / "specs/bifusion.yaml", registry=registry, overrides=[*pairs, "checkpoint=null"]
    ).spec
    whole = prepare(spec, seed=0, registry=registry, device=CPU, progress=silent, say=[].append)
    first = prepare(
        spec, seed=1, registry=registry, device=CPU, progress=silent, say=[].append, only=Selection(frames=1)
    )
    assert torch.equal(tokens_of(whole.train, 0), map_of("scene9101_00_0").half())
    assert torch.equal(tokens_of(whole.train, 1), map_of("scene9100_00_0").half())
    read = {frame_id: tokens_of(whole.evaluated, index) for index, frame_id in enumerate(val)}
    for frame_id, tokens in read.items():
        others = [other for other in val if other[:12] != frame_id[:12]]
        assert any(torch.equal(tokens, map_of(other).half()) for other in others)
    assert torch.equal(tokens_of(first.evaluated, 0), read[val[0]]), "of the whole split, whatever is evaluated of it"


def tokens_of(samples: SampleSet, index: int) -> Tensor:
    tokens = samples[index].tokens
    assert tokens is not None
    return tokens
