"""What is predicted of frames is what an evaluation finds in them; what is merged of it scores as the protocol says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ditr.data.dataset import Dataset
from ditr.data.info_pickle import write_infos
from ditr.errors import Code, DitrError
from ditr.evaluation.match_table import MatchTable, match
from ditr.progress import silent
from ditr.report.scene_files import SCENES
from ditr.runner.execution import settle
from ditr.runner.inputs import Selection
from ditr.runner.merging import Merging
from ditr.runner.prediction_folder import filling, require_new
from ditr.runner.predictions import write_predictions
from ditr.runner.predictor import PredictedFrame, Predictor
from ditr.runner.selection import select
from ditr.runner.trained_model import trained_elsewhere
from ditr.spec.registry import Registry
from tests.reference.slow_scannet_eval import SlowFrame, slow_average_precision
from tests.runner.test_eval import PINNED, REGISTRY, evaluate, load

TINY = "synthrooms_tiny"


def predictor(dataset: str, *names: str, registry: Registry = REGISTRY) -> Predictor:
    """Of the weights that come with ditr, whose scores are low: all from 0.3 on are shown."""
    trained = trained_elsewhere(PINNED, spec=settle(load("baseline").spec))
    selection = select(dataset, names, registry=registry, progress=silent)
    return Predictor(
        replace(trained, best_score=0.3),
        dataset=dataset,
        selection=selection,
        registry=registry,
        progress=silent,
        say=lambda line: None,
    )


@pytest.fixture(scope="module")
def predicted(session_cache: Path, tiny_dataset: Dataset) -> Iterator[list[PredictedFrame]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITR_CACHE", str(session_cache))
        yield list(predictor(TINY).predict())


def test_frames_are_predicted_as_an_evaluation_finds_them(
    predicted: list[PredictedFrame], tiny_dataset: Dataset, tmp_path: Path
) -> None:
    record = evaluate(tmp_path, PINNED, "schedule.batch_size=1", spec="baseline").folder
    table = MatchTable.load(record.matches)
    assert [frame.view.frame_id for frame in predicted] == list(tiny_dataset.val.ids)
    for frame, expected in zip(predicted, table.frames, strict=True):
        truth = frame.view.instance_of_point
        found = match(frame.view.frame_id, instances=frame.found, instance_of_point=truth)
        assert len(found.scores) > 5
        for name, values in vars(expected).items():
            np.testing.assert_array_equal(getattr(found, name), values, err_msg=name)
        ids = tiny_dataset.val.frame(frame.index).instance_ids
        assert frame.instance_ids is not None
        np.testing.assert_array_equal(frame.instance_ids[truth >= 0], ids[truth >= 0])
        assert set(frame.instance_ids[truth < 0].tolist()) <= {-1}


def test_a_frame_alone_is_what_it_is_among_others(predicted: list[PredictedFrame], tiny_dataset: Dataset) -> None:
    """So `ditr view` of it and `ditr predict` are one picture: both draw this view."""
    (alone,) = predictor(TINY, tiny_dataset.val.ids[1]).predict()
    np.testing.assert_array_equal(alone.found.masks, predicted[1].found.masks)
    np.testing.assert_array_equal(alone.found.scores, predicted[1].found.scores)
    np.testing.assert_array_equal(alone.view.predicted.of_point, predicted[1].view.predicted.of_point)
    np.testing.assert_array_equal(alone.view.image, predicted[1].view.image)


@pytest.fixture(scope="module")
def written(predicted: list[PredictedFrame], session_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITR_CACHE", str(session_cache))
        of = predictor(TINY)
        shown: list[tuple[str, str, int]] = []
        merging = Merging(
            of, folder, show=lambda name, scene, view, shift: shown.append((name, view.frame_id, len(scene.keys)))
        )
        write_predictions(of, folder, merging=merging, progress=silent)
    assert [one[:2] for one in shown] == [("scene9001_00", frame.view.frame_id) for frame in predicted]
    assert shown[1][2] > shown[0][2]
    return folder


def test_every_frame_has_its_files_and_the_result_says_with_what(
    written: Path, predicted: list[PredictedFrame], tiny_dataset: Dataset
) -> None:
    for kind, ending in (("masks", "png"), ("points", "ply"), ("instances", "npz"), ("panels", "png")):
        names = sorted(path.name for path in (written / kind).iterdir())
        assert names == [f"{frame_id}.{ending}" for frame_id in tiny_dataset.val.ids]
    with np.load(written / "instances" / f"{tiny_dataset.val.ids[0]}.npz") as numbers:
        np.testing.assert_array_equal(numbers["masks"], predicted[0].found.masks)
    result = json.loads((written / "result.json").read_text())
    assert result["weights"]["file"] == f"registry/checkpoints/{PINNED.name}"
    assert (result["dataset"], result["dataset_digest"], result["split"]) == (TINY, tiny_dataset.digest, "val")
    assert (result["frames"], result["min_score"]) == (list(tiny_dataset.val.ids), 0.3)
    assert 0 < result["frames_per_s"] < result["model_frames_per_s"]


def test_a_merged_scene_scores_as_the_protocol_says_of_its_files(
    written: Path, predicted: list[PredictedFrame], tiny_dataset: Dataset
) -> None:
    facts = json.loads((written / "result.json").read_text())
    with np.load(written / SCENES / "scene9001_00.npz") as numbers:
        masks, scores, truth, xyz = (numbers[name] for name in ("masks", "scores", "truth", "xyz"))
    frame = SlowFrame(masks=masks, scores=scores, instance_of_point=truth)
    ap50, ap25 = slow_average_precision([frame], thresholds=[0.5, 0.25], min_points=facts["min_voxels"])
    scene = facts["scenes"]["scene9001_00"]
    assert ap25 > 0.1
    assert (scene["scores"]["ap50"], scene["scores"]["ap25"]) == pytest.approx((ap50, ap25))
    assert facts["scene_scores"] == scene["scores"], "it is the only one"
    assert scene["frames"] == 2
    assert scene["voxels"] == len(xyz)
    raw = [tiny_dataset.val.frame(i).points[:, :3] + tiny_dataset.val.shift_to_world(i) for i in range(2)]
    everything = np.concatenate(raw)
    assert (xyz >= everything.min(axis=0) - 1e-6).all()
    assert (xyz <= everything.max(axis=0) + 1e-6).all()
    annotated = {
        i for one in predicted if one.instance_ids is not None for i in one.instance_ids[one.instance_ids >= 0]
    }
    assert scene["annotated"] == truth.max() + 1 <= len(annotated)


@pytest.fixture
def bare(tiny_dataset: Dataset, tmp_path: Path) -> Registry:
    """The tiny set's val frames without labels, as the only split, in a registry of its own."""
    root, registry = tmp_path / "bare", tmp_path / "registry"
    shutil.copytree(
        tiny_dataset.root, root, ignore=shutil.ignore_patterns("instance_mask", "semantic_mask", "manifest.json")
    )
    infos = tiny_dataset.val.infos
    left = tuple(replace(info, instances_file=None, semantics_file=None) for info in infos.frames)
    write_infos(root / "all.pkl", replace(infos, frames=left))
    (registry / "datasets").mkdir(parents=True)
    camera = "{fx: 577.870605, fy: 577.870605, cx: 319.5, cy: 239.5, width: 640, height: 480}"
    (registry / "datasets" / "bare.yaml").write_text(
        f"kind: folder\npath: {root}\ninfos: {{train: all.pkl}}\nintrinsics: {camera}\n"
    )
    return Registry(registry, *REGISTRY.folders)


def test_frames_without_labels_are_predicted_and_merged_alike(
    bare: Registry, predicted: list[PredictedFrame], written: Path, tmp_path: Path
) -> None:
    of, folder = predictor("bare", registry=bare), tmp_path / "out"
    result = write_predictions(of, folder, merging=Merging(of, folder, show=None), progress=silent)
    assert result["split"] == "train", "the only one"
    for frame in predicted:
        name = f"{frame.view.frame_id}.npz"
        with np.load(folder / "instances" / name) as numbers, np.load(written / "instances" / name) as labelled:
            np.testing.assert_array_equal(numbers["masks"], labelled["masks"])
    scene = f"{SCENES}/scene9001_00.npz"
    with np.load(folder / scene) as numbers, np.load(written / scene) as labelled:
        np.testing.assert_array_equal(numbers["masks"], labelled["masks"])
        assert "truth" not in numbers.files
    assert result["scenes"]["scene9001_00"]["scores"] is None
    assert result["scene_scores"] is None


def test_frames_that_are_in_no_common_world_are_not_merged_and_it_is_said_first(
    bare: Registry, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    of, (_, lost) = predictor("bare", registry=bare), tiny_dataset.val.infos.frames
    (of.dataset.root / "2D" / lost.scene / "pose" / f"{lost.number}.txt").unlink()
    with pytest.raises(DitrError, match="no such file") as error:
        Merging(of, tmp_path / "out", show=None)
    assert "without --merge" in error.value.fix
    assert not (tmp_path / "out").exists()


def test_a_scene_names_all_of_its_frames(tiny_dataset: Dataset, bare: Registry) -> None:
    def chosen(dataset: str, *names: str, registry: Registry = REGISTRY) -> Selection:
        return select(dataset, names, registry=registry, progress=silent)

    train, val = tiny_dataset.train.ids, tiny_dataset.val.ids
    assert chosen(TINY, "scene9000_00") == Selection(split="train", frames=train, scored=False)
    assert chosen(TINY, val[1], "scene9001_00").frames == (val[1], val[0])
    assert chosen(TINY) == Selection(split="val", frames=None, scored=False)
    assert chosen("bare", registry=bare).split == "train"
    with pytest.raises(DitrError, match="of both splits") as error:
        chosen(TINY, train[0], val[0])
    assert error.value.code is Code.DATASET
    with pytest.raises(DitrError, match="has no frame"):
        chosen(TINY, "scene9002_00")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DitrError, match="something already"):
        require_new(tmp_path)
    with pytest.raises(DitrError, match="something already"):
        require_new(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    require_new(tmp_path / "empty")
    require_new(tmp_path / "new" / "out")


def test_a_folder_that_cannot_be_written_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DitrError, match="cannot be written: Not a directory") as error:
        write_predictions(predictor(TINY), tmp_path / "notes.txt" / "out", merging=None, progress=silent)
    assert error.value.code is Code.ENVIRONMENT


def test_a_prediction_that_ends_early_leaves_nothing_and_the_same_call_can_be_made_again(tmp_path: Path) -> None:
    def write(out: Path, *, stop: bool) -> None:
        require_new(out)
        with filling(out) as part:
            (part / "masks").mkdir()
            (part / "masks/0.png").write_text("mask")
            assert [path.name for path in out.iterdir()] == [part.name], "nothing is there before all is"
            if stop:
                raise KeyboardInterrupt
            (part / "result.json").write_text("{}")

    (tmp_path / "empty").mkdir()
    for name in ("new/out", "empty"):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / name, stop=True)
    assert not (tmp_path / "new/out").exists()
    assert list((tmp_path / "empty").iterdir()) == []
    (tmp_path / "empty/.4194399.part").mkdir()  # of a process that was killed; Linux has no such number
    for name in ("new/out", "empty"):
        write(tmp_path / name, stop=False)
        assert (tmp_path / name / "masks/0.png").read_text() == "mask"
        with pytest.raises(DitrError, match="something already"):
            write(tmp_path / name, stop=False)
