"""What ``import ditr`` offers, and what it does not do until it is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ditr
from ditr.data.dataset import Dataset
from ditr.errors import DitrError
from ditr.paths import project_dir


def test_the_surface_is_this() -> None:
    """Renew it on purpose: notebooks of other people call these."""
    assert ditr.__all__ == ["__version__", "compare", "load_run", "load_spec", "open_dataset", "results"]
    for name in ditr.__all__[1:]:
        assert getattr(ditr, name).__doc__


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import ditr, sys; assert {'torch', 'mlflow', 'duckdb', 'pydantic', 'numpy'}.isdisjoint(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=project_dir())


def test_products_on_a_gpu_have_the_same_memory_from_the_first_one_on() -> None:
    """cuBLAS keeps what a stream had when it first multiplied, such as for 2D maps before a training."""
    name = "CUBLAS_WORKSPACE_CONFIG"
    code = f"import ditr, os, sys; assert os.environ['{name}'] == ':4096:8' and 'torch' not in sys.modules"
    environment = {key: value for key, value in os.environ.items() if key != name}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=project_dir(), env=environment)


def test_a_spec_is_loaded_with_overrides_and_checked() -> None:
    spec = ditr.load_spec(project_dir() / "specs/fpn_inject.yaml", "schedule.epochs=2")
    assert (spec.name, spec.schedule.epochs) == ("fpn_inject", 2)
    with pytest.raises(DitrError, match="epochs"):
        ditr.load_spec(project_dir() / "specs/fpn_inject.yaml", "schedule.epochs=many")


def test_a_data_set_is_opened_and_says_what_it_is(tiny_dataset: Dataset) -> None:
    dataset = ditr.open_dataset("synthrooms_tiny")
    assert dataset.digest == tiny_dataset.digest
    assert dataset.train.frame(0).points.shape == (20_000, 6)
    assert repr(dataset) == f"Dataset('synthrooms_tiny', 2 + 2 frames, {str(dataset.root)!r})"
    assert repr(dataset.train.frame(0)) == f"Frame({dataset.train.ids[0]!r}, 20,000 points)"
    frames, index = dataset.find(dataset.val.ids[1])
    assert (frames is dataset.val, index) == (True, 1)


def test_without_runs_every_call_is_one_clear_message(tmp_path: Path) -> None:
    for call in (
        lambda: ditr.compare(runs=tmp_path),
        lambda: ditr.load_run("fpn_inject", runs=tmp_path),
        lambda: ditr.results(tmp_path).df(),
    ):
        with pytest.raises(DitrError, match=r"no (finished run|results) yet"):
            call()


@pytest.mark.slow
def test_a_run_gives_its_spec_numbers_model_and_view_of_a_frame(tmp_path: Path, tiny_dataset: Dataset) -> None:
    small = ("dataset.name=synthrooms_tiny", "checkpoint=null", "schedule.epochs=1", "execution.workers=0")
    options = [part for one in (*small, "tracking.mlflow=false", "tracking.panels=0") for part in ("--set", one)]
    command = [sys.executable, "-m", "ditr", "run", "specs/fpn_inject.yaml", *options]
    subprocess.run(command, check=True, cwd=project_dir(), capture_output=True)
    run = ditr.load_run("fpn_inject")
    assert run.spec.schedule.epochs == 1
    assert repr(run) == f"LoadedRun({run.record.path.name!r}, finished, ap50 {run.result['ap50']:.4f})"
    assert run.provenance["dataset"]["digest"] == tiny_dataset.digest
    model = run.model()
    assert not model.training
    assert sum(weight.numel() for weight in model.parameters()) == run.result["params_m"] * 1e6
    view = run.frame(tiny_dataset.val.ids[0])
    np.testing.assert_array_equal(view.in_space.xyz, tiny_dataset.val.frame(0).points[:, :3])
    assert repr(view) == f"FrameView({view.frame_id!r}, 20,000 points, {len(view.predicted.scores)} predictions)"
    assert (np.diff(view.predicted.scores) <= 0).all()
    assert view.features is not None
    with pytest.raises(DitrError, match="has no frame"):
        run.frame("scene0000_00_0")
    assert torch.get_default_dtype() is torch.float32
    assert ditr.results().df()["ap50"].tolist() == [run.result["ap50"]]
