"""Where training starts from: what the checkpoint gave each part of the model is said and recorded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ditr import paths
from ditr.catalog import sha256_of
from ditr.errors import DitrError
from ditr.runner.inputs import build_model
from ditr.runner.outputs import _weights
from ditr.spec.load import load_spec
from ditr.spec.models import FileCheckpoint, Spec
from ditr.spec.registry import Registry

MINI = "synthrooms_res16unet_mini"


def spec_of(arm: str, registry: Registry) -> Spec:
    return load_spec(
        paths.project_dir() / "specs" / f"{arm}.yaml", registry=registry, overrides=["execution.engine=minkowski"]
    ).spec


def test_a_registry_checkpoint_is_said_and_recorded_by_group() -> None:
    registry = Registry()
    _, loaded = build_model(spec_of("fpn_inject", registry), seed=0, registry=registry, feature_channels=24)
    assert loaded is not None
    head, *groups = loaded.lines()
    assert head.startswith(f"ditr weights {MINI}.safetensors, sha256 7eedd08947e2: 283 entries set")
    assert [line.split()[:4] for line in groups[:3]] == [
        ["backbone", "192", "of", "192"],
        ["pool", "13", "of", "13"],
        ["decoder", "78", "of", "78"],
    ]
    assert [line.split()[0] for line in groups[3:]] == ["injection", "bifusion"]
    assert all("start fresh" in line for line in groups[3:])
    recorded = _weights(loaded)
    assert recorded is not None
    assert recorded["by_group"]["backbone"] == {"matched": 192, "missing": 0, "unexpected": 0}
    assert recorded["by_group"]["injection"]["missing"] == 4
    assert recorded["key_prefix"] == ""
    assert recorded["converted"] == {}


def test_the_entrys_count_and_prefix_reach_the_loader(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    shutil.copytree(paths.registry_dirs()[0], folder)
    entry = folder / "checkpoints" / f"{MINI}.yaml"
    text = entry.read_text()
    for changed, message in (
        (text.replace("entries: 283", "entries: 282"), "sets 283 entries of the 3D-only model, .* says 282"),
        (text + "key_prefix: model.\n", r"starts with 'model\.backbone\.'"),
    ):
        entry.write_text(changed)
        registry = Registry(folder)
        with pytest.raises(DitrError, match=message):
            build_model(spec_of("baseline", registry), seed=0, registry=registry, feature_channels=None)


def test_a_file_that_is_not_pinned_is_said_with_the_line_that_pins_it(tmp_path: Path) -> None:
    registry = Registry()
    own = tmp_path / "own.safetensors"
    shutil.copyfile(paths.registry_dirs()[0] / "checkpoints" / f"{MINI}.safetensors", own)
    spec = spec_of("baseline", registry)
    line = f"sha256: {sha256_of(own)}"
    for pin, said in ((None, True), (sha256_of(own), False)):
        checkpoint = FileCheckpoint(kind="file", path=str(own), format="ditr", sha256=pin)
        _, loaded = build_model(
            spec.model_copy(update={"checkpoint": checkpoint}), seed=0, registry=registry, feature_channels=None
        )
        assert loaded is not None
        assert any(line in one for one in loaded.lines()) is said
