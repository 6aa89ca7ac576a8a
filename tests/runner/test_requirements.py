from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch

from ditr.data.dataset import Dataset
from ditr.data.info_pickle import write_infos
from ditr.errors import Code, DitrError
from ditr.features import weights
from ditr.paths import project_dir
from ditr.runner.requirements import require_inputs
from ditr.spec.load import load_spec
from ditr.spec.models import Spec
from ditr.spec.registry import Registry

REGISTRY = Registry()
TINY = ("dataset.name=synthrooms_tiny", "checkpoint=null")


def load(name: str, *overrides: str) -> Spec:
    return load_spec(project_dir() / "specs" / f"{name}.yaml", registry=REGISTRY, overrides=overrides).spec


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> NoReturn:
        raise DitrError("no weights and no network", code=Code.FEATURES)

    monkeypatch.setattr(weights, "_download", refuse)


def test_everything_missing_is_told_at_once() -> None:
    with pytest.raises(DitrError, match="2 things are missing, so nothing was started") as error:
        require_inputs([load("baseline", *TINY), load("scannet200_sv/baseline")], registry=REGISTRY)
    assert "scannet200-sv" in str(error.value)
    assert "mask3d_scannet200" in str(error.value)


def test_weights_of_a_source_are_needed_only_for_maps_that_are_not_there(offline: None, tiny_dataset: Dataset) -> None:
    published = "features.source=dinov2_vitl14_reg4"
    require_inputs([load("baseline", *TINY, published)], registry=REGISTRY)
    require_inputs([load("fpn_inject", *TINY)], registry=REGISTRY)
    with pytest.raises(DitrError, match="no weights"):
        require_inputs([load("fpn_inject", *TINY, published)], registry=REGISTRY)
    require_inputs([load("fpn_inject", *TINY, "features.weights={kind: seeded, seed: 1}")], registry=REGISTRY)
    hub = "features.weights={kind: hub}"
    with pytest.raises(DitrError, match="no weights"):
        require_inputs([load("fpn_inject", *TINY, published, hub)], registry=REGISTRY)


def test_a_file_of_weights_that_is_not_there_is_found_before_any_run(tiny_dataset: Dataset, tmp_path: Path) -> None:
    own = f"features.weights={{kind: file, path: {tmp_path / 'gone.pth'}}}"
    with pytest.raises(DitrError, match="no such weight file") as raised:
        require_inputs([load("fpn_inject", *TINY, "features.source=dinov2_vits14", own)], registry=REGISTRY)
    assert raised.value.where == str(tmp_path / "gone.pth")


def test_a_layer_that_the_source_lacks_is_found_before_any_run(tiny_dataset: Dataset) -> None:
    with pytest.raises(DitrError, match="there is no layer 40"):
        require_inputs([load("fpn_inject", *TINY, "features.layers=[40]")], registry=REGISTRY)


@pytest.fixture
def precomputed(tmp_path: Path, tiny_dataset: Dataset) -> Path:
    """A folder with a map of every frame, and a registry that has it as ``precomputed``."""
    shutil.copytree(REGISTRY.folders[0], tmp_path / "registry")
    folder = tmp_path / "maps"
    folder.mkdir()
    entry = f"kind: precomputed\npath: {folder}\nfiles: '{{id}}.pt'\nchannels: 8\nrows: 6\ncolumns: 8\n"
    (tmp_path / "registry/features/precomputed.yaml").write_text(f"{entry}covers: [480, 640]\nlicence: none\n")
    for frame_id in tiny_dataset.train.ids + tiny_dataset.val.ids:
        torch.save(torch.zeros(8, 6, 8), folder / f"{frame_id}.pt")
    return folder


def test_precomputed_maps_are_looked_for_before_any_run(precomputed: Path, tiny_dataset: Dataset) -> None:
    registry = Registry(precomputed.parent / "registry")
    overrides = (*TINY, "features.source=precomputed", "features.input_size=null")
    spec = load_spec(project_dir() / "specs" / "fpn_inject.yaml", registry=registry, overrides=overrides).spec
    require_inputs([spec], registry=registry)
    last = precomputed / f"{tiny_dataset.val.ids[-1]}.pt"
    last.unlink()
    with pytest.raises(DitrError, match="there is no precomputed 2D feature map of this frame") as raised:
        require_inputs([spec], registry=registry)
    assert str(last) in raised.value.where
    torch.save(torch.zeros(8, 6, 8), last)
    torch.save(torch.zeros(8, 8, 6), precomputed / f"{tiny_dataset.train.ids[0]}.pt")
    with pytest.raises(DitrError, match=r"is \(8, 8, 6\), not \(8, 6, 8\)"):
        require_inputs([spec], registry=registry)


def test_features_of_points_are_looked_for_before_any_run(tmp_path: Path, tiny_dataset: Dataset) -> None:
    shutil.copytree(REGISTRY.folders[0], tmp_path / "registry")
    entry = f"kind: points\npath: {tmp_path}\nfiles: '{{id}}.npy'\nchannels: 2\n"
    (tmp_path / "registry/features/of_points.yaml").write_text(entry)
    registry = Registry(tmp_path / "registry")
    overrides = (*TINY, "features.source=of_points", "features.input_size=null")
    spec = load_spec(project_dir() / "specs" / "fpn_inject.yaml", registry=registry, overrides=overrides).spec
    for frame_id in tiny_dataset.train.ids + tiny_dataset.val.ids:
        np.save(tmp_path / f"{frame_id}.npy", np.zeros((20_000, 2)))
    require_inputs([spec], registry=registry)
    np.save(tmp_path / f"{tiny_dataset.train.ids[0]}.npy", np.zeros((19_999, 2)))
    with pytest.raises(DitrError, match="features of 19999 points, and the frame has 20000"):
        require_inputs([spec], registry=registry)


@pytest.mark.parametrize(
    ("infos", "said"),
    [
        ("{train: train.pkl, val: bare.pkl}", "2 of 2 frames of val have no labels, the first is scene9001_00_0"),
        ("{train: bare.pkl}", "2 of 2 frames of train have no labels"),
        ("{val: val.pkl}", r"data set mine has no split train, it has val \(2 frames\)"),
    ],
)
def test_a_training_needs_both_splits_and_their_labels(
    tiny_dataset: Dataset, tmp_path: Path, infos: str, said: str
) -> None:
    for split, frames in tiny_dataset.splits.items():
        write_infos(tmp_path / f"{split}.pkl", frames.infos)
    bare = tuple(replace(i, instances_file=None, semantics_file=None) for i in tiny_dataset.val.infos.frames)
    write_infos(tmp_path / "bare.pkl", replace(tiny_dataset.val.infos, frames=bare))
    for part in ("points", "super_points", "instance_mask", "semantic_mask", "2D", "pose_centered"):
        (tmp_path / part).symlink_to(tiny_dataset.root / part)
    (tmp_path / "registry/datasets").mkdir(parents=True)
    (tmp_path / "registry/datasets/mine.yaml").write_text(
        f"kind: folder\npath: {tmp_path}\ninfos: {infos}\n"
        "intrinsics: {fx: 577.870605, fy: 577.870605, cx: 319.5, cy: 239.5, width: 640, height: 480}\n"
    )
    registry = Registry(tmp_path / "registry", *REGISTRY.folders)
    overrides = ("checkpoint=null", "dataset.name=mine")
    spec = load_spec(project_dir() / "specs" / "baseline.yaml", registry=registry, overrides=overrides).spec
    with pytest.raises(DitrError, match=said):
        require_inputs([spec], registry=registry)
