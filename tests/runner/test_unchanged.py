"""A run is skipped or continued only on the very files that it read."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ditr.catalog import weights_stamp
from ditr.data.dataset import Dataset, open_dataset
from ditr.errors import DitrError
from ditr.features.extract import ensure_features
from ditr.features.precomputed_maps import PrecomputedMaps
from ditr.files import write_json
from ditr.paths import project_dir
from ditr.progress import silent
from ditr.record import provenance
from ditr.record.folder import Record
from ditr.runner.inputs import Inputs, prepare
from ditr.runner.outputs import write_provenance
from ditr.runner.plan import PlannedRun, plan
from ditr.runner.unchanged import Present
from ditr.spec.load import load_spec
from ditr.spec.models import Spec
from ditr.spec.registry import Registry

REGISTRY = Registry()
CPU = torch.device("cpu")


def load(name: str, *overrides: str) -> Spec:
    return load_spec(project_dir() / "specs" / f"{name}.yaml", registry=REGISTRY, overrides=overrides).spec


def finished(path: Path, **facts: Any) -> Record:
    path.mkdir(exist_ok=True)
    folder = Record(path)
    write_json(folder.provenance, {"start_weights": None, "features": None} | facts)
    return folder


def test_a_finished_run_does_not_stand_for_another_weight_file_of_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITR_WEIGHTS", str(tmp_path))
    spec = load("fpn_inject", "features.source=dinov2_vitl14_reg4")
    weights = REGISTRY.features("dinov2_vitl14_reg4").weights
    file = tmp_path / "dinov2_vitl14_reg4_pretrain.pth"
    file.write_bytes(b"first")
    folder = finished(tmp_path / "run", features={"weights_stamp": weights_stamp(weights)})
    Present(REGISTRY).require_same(spec, folder)
    file.write_bytes(b"second")
    with pytest.raises(DitrError, match="the 2D source's weights"):
        Present(REGISTRY).require_same(spec, folder)
    Present(REGISTRY).require_same(load("baseline", "features.source=dinov2_vitl14_reg4"), folder)
    hub = load("fpn_inject", "features.source=dinov2_vitl14_reg4", "features.weights={kind: hub}")
    Present(REGISTRY).require_same(hub, folder)  # it reads no file of the user's
    own = load("fpn_inject", f"features.weights={{kind: file, path: {file}}}")
    with pytest.raises(DitrError, match="the 2D source's weights"):
        Present(REGISTRY).require_same(own, folder)
    pinned = f"{{kind: file, path: {file}, sha256: {hashlib.sha256(b'first').hexdigest()}}}"
    Present(REGISTRY).require_same(load("fpn_inject", f"features.weights={pinned}"), folder)  # the identity says which
    file.unlink()
    Present(REGISTRY).require_same(spec, folder)  # a finished run needs no weights


def test_a_finished_run_does_not_stand_for_an_unpinned_checkpoint_that_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITR_WEIGHTS", str(tmp_path))
    spec = load("scannet200_sv/baseline")
    (tmp_path / REGISTRY.checkpoint("mask3d_scannet200").file).write_bytes(b"other")
    folder = finished(tmp_path / "run", start_weights={"sha256": hashlib.sha256(b"first").hexdigest()})
    with pytest.raises(DitrError, match="the checkpoint"):
        Present(REGISTRY).require_same(spec, folder)


def test_a_finished_run_does_not_stand_for_a_folder_that_was_prepared_again(
    tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITR_DATA", str(tmp_path))
    root = tmp_path / "scannet200-sv"
    shutil.copytree(tiny_dataset.root, root)
    (root / "manifest.json").unlink()
    opened = open_dataset("scannet200_sv", registry=REGISTRY)
    spec = load("scannet200_sv/baseline")
    folder = finished(tmp_path / "run", dataset={"digest": opened.digest})
    Present(REGISTRY).require_same(spec, folder)
    points = root / "points" / f"{opened.train.ids[0]}.bin"
    points.write_bytes(points.read_bytes()[24:] + points.read_bytes()[:24])
    with pytest.raises(DitrError, match="the data set"):
        Present(REGISTRY).require_same(spec, folder)


@pytest.fixture
def precomputed(
    tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Spec, Path, PrecomputedMaps]:
    """A spec on a folder of the user's with maps of every frame, where these are, and they as a run reads them."""
    monkeypatch.setenv("DITR_DATA", str(tmp_path))
    root = tmp_path / "scannet200-sv"
    shutil.copytree(tiny_dataset.root, root)
    (root / "manifest.json").unlink()
    opened = open_dataset("scannet200_sv", registry=REGISTRY)
    for frame in (*opened.train.ids, *opened.val.ids):
        scene, _, number = frame.rpartition("_")
        (root / "clip_feat" / scene).mkdir(parents=True, exist_ok=True)
        torch.save({"pix": torch.zeros(512, 60, 80).half()}, root / "clip_feat" / scene / f"{number}.pt")
    small = ["features={source: precomputed_clip_rn50, input_size: null}", "dataset.name=scannet200_sv"]
    spec = load("fpn_inject", *small, "checkpoint=null")
    assert spec.features is not None
    entry = REGISTRY.features(spec.features.source)
    maps = ensure_features((opened.train, opened.val), spec=spec.features, entry=entry, dataset=opened, device=CPU)
    assert isinstance(maps, PrecomputedMaps)
    return spec, root / "clip_feat", maps


def test_a_finished_run_does_not_stand_for_precomputed_maps_that_changed(
    precomputed: tuple[Spec, Path, PrecomputedMaps], tmp_path: Path
) -> None:
    spec, folder, maps = precomputed
    run = finished(tmp_path / "run", features=maps.manifest())
    Present(REGISTRY).require_same(spec, run)
    file = max(folder.rglob("*.pt"))
    content, size = torch.load(file), file.stat().st_size
    content["pix"][100, 30, 40] = 1
    torch.save(content, file)
    assert file.stat().st_size == size
    with pytest.raises(DitrError, match="changed since this run read it: the precomputed 2D maps"):
        Present(REGISTRY).require_same(spec, run)
    Present(REGISTRY).require_same(load("baseline", "dataset.name=scannet200_sv", "checkpoint=null"), run)
    Present(REGISTRY).require_same(spec, finished(tmp_path / "old", features={"weights_digest": "of a version before"}))
    file.unlink()
    Present(REGISTRY).require_same(spec, run)  # a finished run needs no maps


def test_only_maps_that_the_run_read_have_to_be_the_same(
    precomputed: tuple[Spec, Path, PrecomputedMaps], tmp_path: Path
) -> None:
    spec = precomputed[0]
    assert spec.features is not None
    opened = open_dataset("scannet200_sv", registry=REGISTRY)
    excluded = opened.val.ids[1]
    frames = (opened.train, opened.val.without(frozenset({excluded})))
    entry = REGISTRY.features(spec.features.source)
    maps = ensure_features(frames, spec=spec.features, entry=entry, dataset=opened, device=CPU)
    facts = {"digest": opened.digest, "excluded_frames": [excluded]}
    run = finished(tmp_path / "run", features=maps.manifest(), dataset=facts)
    maps.path(excluded).unlink()
    Present(REGISTRY).require_same(spec, run)
    torch.save({"pix": torch.ones(512, 60, 80).half()}, maps.path(opened.val.ids[0]))
    with pytest.raises(DitrError, match="the precomputed 2D maps"):
        Present(REGISTRY).require_same(spec, run)


@pytest.fixture
def begun(tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PlannedRun, Inputs]:
    """A training on commit ``a`` that has saved its state."""
    code_is(monkeypatch, "a")
    loaded = load_spec(
        project_dir() / "specs/bifusion.yaml",
        registry=REGISTRY,
        overrides=["dataset.name=synthrooms_tiny", "checkpoint=null"],
    )
    (planned,) = plan([loaded], registry=REGISTRY, runs=tmp_path, force=False)
    planned.folder.training_state.parent.mkdir(parents=True)
    inputs = prepare(planned.spec, seed=0, registry=REGISTRY, device=CPU, progress=silent, say=lambda line: None)
    write_provenance(planned, inputs=inputs, weights={"start_weights": None}, device=CPU)
    planned.folder.training_state.touch()
    return planned, inputs


def code_is(monkeypatch: pytest.MonkeyPatch, commit: str) -> None:
    facts = {"git": {"commit": commit, "dirty": False}, "code": f"digest of {commit}", "packages": {"torch": "2"}}
    monkeypatch.setattr(provenance, "collect", lambda: facts)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"features": {"weights_digest": "0"}}, "2D source's weights"),
        ({"features": {"maps_digest": "0"}}, "precomputed 2D maps"),
        ({"dataset": {"digest": "0"}}, "data set"),
    ],
)
def test_a_training_goes_on_only_with_what_it_was_begun_with(
    changed: dict[str, dict[str, str]], what: str, begun: tuple[PlannedRun, Inputs]
) -> None:
    planned, inputs = begun
    assert inputs.features is not None
    before = planned.folder.provenance.read_text()
    assert inputs.features["weights_digest"] in before
    other = replace(
        inputs,
        features=inputs.features | changed.get("features", {}),
        dataset=replace(inputs.dataset, **changed.get("dataset", {})),
    )
    with pytest.raises(DitrError, match=f"changed since this run read it: the {what}"):
        write_provenance(planned, inputs=other, weights={"start_weights": None}, device=CPU)
    assert planned.folder.provenance.read_text() == before
    planned.folder.training_state.unlink()  # nothing was trained yet: it may begin anew
    write_provenance(planned, inputs=other, weights={"start_weights": None}, device=CPU)


def test_code_that_changed_between_two_sessions_is_not_forgotten(
    begun: tuple[PlannedRun, Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, inputs = begun
    same = write_provenance(planned, inputs=inputs, weights={"start_weights": None}, device=CPU)
    assert not provenance.code_changed(same)
    code_is(monkeypatch, "b")
    facts = write_provenance(planned, inputs=inputs, weights={"start_weights": None}, device=CPU)
    assert [session["code"] for session in facts["earlier_sessions"]] == ["digest of a", "digest of a"]
    assert [session["packages"] for session in facts["earlier_sessions"]] == [{"torch": "2"}] * 2
    assert provenance.code_changed(facts)
