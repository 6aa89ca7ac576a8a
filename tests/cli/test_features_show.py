"""``ditr features show``: which map it draws, and what it says where there is none to draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from ditr.cli.main import app
from ditr.data.dataset import Dataset
from ditr.errors import DitrError
from ditr.features.extract import store_folder
from ditr.features.store import FeatureStore
from ditr.spec.entries import VitEntry
from ditr.spec.feature_maps import map_shape
from ditr.spec.models import FeatureSpec
from ditr.spec.registry import Registry

SPEC = Path(__file__).parents[2] / "specs/bifusion.yaml"
FRAME = "scene9001_00_0"
TINY = ("--set", "dataset.name=synthrooms_tiny")
FEATURES = FeatureSpec(source="vit_mini14_reg4", input_size=(420, 560))
SHAPE = map_shape(FEATURES, Registry().features(FEATURES.source))


def show(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["features", "show", *(str(argument) for argument in arguments)])


@pytest.fixture
def own_cache(tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A cache with the data set and without any map."""
    datasets = tmp_path / "cache" / "datasets"
    datasets.mkdir(parents=True)
    (datasets / tiny_dataset.root.name).symlink_to(tiny_dataset.root)
    monkeypatch.setenv("DITR_CACHE", str(tmp_path / "cache"))
    return tiny_dataset


def test_a_map_that_is_not_there_is_computed_and_not_kept(own_cache: Dataset, tmp_path: Path) -> None:
    picture = tmp_path / "pictures" / "one.png"
    result = show(SPEC, FRAME, "--out", picture, *TINY)
    assert result.exit_code == 0, result.output
    assert f"map: {SHAPE[0]} x {SHAPE[1]} x {SHAPE[2]}, computed now on the CPU and not kept" in result.output
    assert str(picture) in result.output
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(maxcolors=2**24) or ()) > 1000
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_stored_map_is_what_is_drawn(own_cache: Dataset, tmp_path: Path) -> None:
    """A map of two kinds of tokens, which no image gives, comes back as two colours."""
    entry = Registry().features(FEATURES.source)
    assert isinstance(entry, VitEntry)
    store = FeatureStore(store_folder(spec=FEATURES, entry=entry, dataset=own_cache), shape=SHAPE)
    tokens = torch.zeros(SHAPE, dtype=torch.float16)
    tokens[0, :, : SHAPE[2] // 2], tokens[1, :, SHAPE[2] // 2 :] = 1, 1
    store.write(FRAME, tokens)
    result = show(SPEC, FRAME, "--out", tmp_path / "one.png", *TINY)
    assert result.exit_code == 0, result.output
    assert f"stored in {store.path(FRAME)}" in result.output
    assert "100.0 + 0.0 + 0.0 = 100.0 % of its variance" in result.output
    with Image.open(tmp_path / "one.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for red in (0, 255):  # the two ends of the one direction; the other two colours have nothing to tell
        assert np.all(np.abs(pixels - np.array([red, 127.5, 127.5])) < 1, axis=1).mean() > 0.03


def test_an_unknown_frame_gets_its_nearest_names() -> None:
    result = show(SPEC, "scene9001_00_1", *TINY)
    assert isinstance(result.exception, DitrError)
    assert "synthrooms_tiny has no frame 'scene9001_00_1'" in str(result.exception)
    assert "scene9001_00_0" in str(result.exception)


def test_a_spec_without_features_is_refused() -> None:
    result = show(SPEC, FRAME, *TINY, "--set", "features=null", "--set", "fusion.bifusion=null")
    assert isinstance(result.exception, DitrError)
    assert "no 2D features" in str(result.exception)
    assert not list(Path.cwd().glob("features_*.png"))
