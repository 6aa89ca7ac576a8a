"""Where training starts from: what the checkpoint gave each part of the model is said and recorded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ditr import paths
from ditr.catalog import sha256_of
from ditr.cli.main import app
from ditr.errors import Code, DitrError
from ditr.model.sparse import minkowski
from ditr.runner.inputs import build_model, pick_device
from ditr.runner.outputs import _weights
from ditr.spec.load import load_spec
from ditr.spec.models import ExecutionSpec, FileCheckpoint, Spec
from ditr.spec.registry import Registry

MINI = "synthrooms_res16unet_mini"


def spec_of(arm: str, registry: Registry) -> Spec:
    return load_spec(paths.project_dir() / "specs" / f"{arm}.yaml", registry=registry).spec


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


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def has(*, gpu: bool, engine: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(minkowski, "engine_has_cuda", lambda: engine)

    return has


@pytest.mark.parametrize(
    ("gpu", "engine", "of"),
    [
        (True, True, {"auto": "cuda", "cuda": "cuda", "cpu": "cpu"}),
        (False, True, {"auto": "cpu", "cpu": "cpu"}),
        (False, False, {"auto": "cpu", "cpu": "cpu"}),
        (True, False, {"cpu": "cpu"}),
    ],
)
def test_the_gpu_is_used_where_there_is_one(
    machine: Callable[..., None], gpu: bool, engine: bool, of: dict[str, str]
) -> None:
    machine(gpu=gpu, engine=engine)
    for device, picked in of.items():
        assert pick_device(ExecutionSpec.model_validate({"device": device})).type == picked
    for refused in {"auto", "cuda", "cpu"} - of.keys():
        with pytest.raises(DitrError) as raised:
            pick_device(ExecutionSpec.model_validate({"device": refused}))
        assert raised.value.code is Code.ENVIRONMENT
        assert "execution.device" in raised.value.where + raised.value.fix


def test_no_run_begins_on_the_cpu_beside_a_gpu_that_the_engine_was_built_without(
    machine: Callable[..., None], tmp_path: Path
) -> None:
    """It would be many times slower, and a line of the log is not looked at."""
    machine(gpu=True, engine=False)
    arm = str(paths.project_dir() / "specs/baseline.yaml")
    ran = CliRunner().invoke(app, ["run", arm])
    assert isinstance(ran.exception, DitrError)
    assert ran.exception.what == "torch sees a GPU, and MinkowskiEngine was built without CUDA"
    assert "execution.device=cpu" in ran.exception.fix
    assert not list(paths.runs_dir().glob("*"))


def test_the_entrys_count_and_prefix_reach_the_loader(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    shutil.copytree(paths.registry_dir(), folder)
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
    shutil.copyfile(paths.registry_dir() / "checkpoints" / f"{MINI}.safetensors", own)
    spec = spec_of("baseline", registry)
    line = f"sha256: {sha256_of(own)}"
    for pin, said in ((None, True), (sha256_of(own), False)):
        checkpoint = FileCheckpoint(kind="file", path=str(own), format="ditr", sha256=pin)
        _, loaded = build_model(
            spec.model_copy(update={"checkpoint": checkpoint}), seed=0, registry=registry, feature_channels=None
        )
        assert loaded is not None
        assert any(line in one for one in loaded.lines()) is said
