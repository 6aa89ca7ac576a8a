"""What a view shows of a run is what the run's evaluation found, and what its model read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from ditr.data.dataset import Dataset
from ditr.data.frame_view import FrameView, load_views
from ditr.errors import Code, DitrError
from ditr.evaluation.instance_ap import precision_recall
from ditr.evaluation.match_table import MatchTable
from ditr.geometry.camera import project
from ditr.progress import silent
from ditr.record.folder import Record
from ditr.runner.inputs import Selection
from ditr.runner.predictor import Predictor
from ditr.runner.trained_model import trained_in
from ditr.spec.load import load_spec
from tests.reference.finished_runs import finish_anew
from tests.runner.test_eval import REGISTRY, evaluate, run_of, trained  # noqa: F401


def see(
    run: Record, frame: str, *overrides: str, split: str = "val", say: Callable[[str], None] = lambda line: None
) -> FrameView:
    return see_with_score(run, frame, *overrides, split=split, say=say)[0]


def see_with_score(
    run: Record, frame: str, *overrides: str, split: str = "val", say: Callable[[str], None] = lambda line: None
) -> tuple[FrameView, float]:
    spec = load_spec(run.spec, registry=REGISTRY, overrides=overrides).spec
    model = replace(trained_in(run), spec=spec)
    selection = Selection(split="train" if split == "train" else "val", frames=(frame,))
    predictor = Predictor(
        model, dataset=spec.dataset.name, selection=selection, registry=REGISTRY, progress=silent, say=say
    )
    (predicted,) = predictor.predict()
    return predicted.view, model.best_score


@pytest.fixture(scope="module")
def one_by_one(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Record:  # noqa: F811
    """The run's weights evaluated frame by frame, as a view does; in batches rounding differs, and what hangs on it."""
    return evaluate(tmp_path_factory.mktemp("eval"), run_of(trained).path, "schedule.batch_size=1").folder


@pytest.mark.parametrize("index", [0, 1])
def test_a_seen_frame_is_what_the_evaluation_found(
    trained: Path,  # noqa: F811
    one_by_one: Record,
    tiny_dataset: Dataset,
    index: int,
) -> None:
    run, frame_id = run_of(trained), tiny_dataset.val.ids[index]
    seen, best_score = see_with_score(run, frame_id)
    table = MatchTable.load(run.matches)
    (in_batch,) = table.subset([frame_id]).frames
    np.testing.assert_allclose(seen.predicted.scores, in_batch.scores, rtol=1e-3)
    (expected,) = MatchTable.load(one_by_one.matches).subset([frame_id]).frames
    np.testing.assert_array_equal(seen.predicted.scores, expected.scores)
    right_about = {int(gt) for gt in seen.predicted.partner if gt >= 0}
    assert right_about == set(np.flatnonzero(expected.best_iou() > 0.5).tolist())
    kept = load_views(one_by_one.kept)[frame_id]
    for field in fields(kept.predicted):
        np.testing.assert_array_equal(getattr(seen.predicted, field.name), getattr(kept.predicted, field.name))
    np.testing.assert_array_equal(seen.instance_of_point, kept.instance_of_point)
    np.testing.assert_array_equal(seen.image, kept.image)
    assert len(seen.predicted.scores)
    best = precision_recall(table, threshold=0.5).best_score
    assert best_score <= best, "rounding hides no prediction"
    assert best_score == pytest.approx(best, rel=1e-3)
    assert seen.frame_id == frame_id


def test_points_are_the_frames_own_and_fall_on_their_pixels(trained: Path, tiny_dataset: Dataset) -> None:  # noqa: F811
    frame = tiny_dataset.val.frame(1)
    seen = see(run_of(trained), frame.id)
    np.testing.assert_array_equal(seen.in_space.xyz, frame.points[:, :3])
    np.testing.assert_array_equal(seen.in_space.rgb, frame.points[:, 3:].round())
    np.testing.assert_array_equal(seen.in_space.superpoints, frame.superpoints)
    projected = project(seen.in_space.xyz, pose_c2w=seen.in_space.pose_c2w, intrinsics=seen.in_space.intrinsics)
    np.testing.assert_array_equal(projected.valid, seen.uv_valid)
    assert seen.uv_valid.any()
    np.testing.assert_allclose(projected.uv[seen.uv_valid], seen.uv[seen.uv_valid], atol=1e-4)
    column, row = np.rint(seen.uv[seen.uv_valid]).astype(int).T
    difference = np.abs(seen.image[row, column].astype(int) - seen.in_space.rgb[seen.uv_valid])
    assert np.median(difference) < 8, "points have the colours of their pixels"


def test_a_frame_of_the_training_split_can_be_seen(trained: Path, tiny_dataset: Dataset) -> None:  # noqa: F811
    seen = see(run_of(trained), tiny_dataset.train.ids[1], split="train")
    np.testing.assert_array_equal(seen.in_space.xyz, tiny_dataset.train.frame(1).points[:, :3])


def of_map(seen: FrameView, points: Sequence[bool] | np.ndarray) -> np.ndarray:
    """Colours of the tokens that contain the pixels of these points."""
    assert seen.features is not None
    colours, (height, width) = seen.features.of_tokens, seen.features.covers_hw
    u, v = seen.uv[points].T
    rows, columns = colours.shape[:2]
    read = colours[((v + 0.5) * rows / height).astype(int), ((u + 0.5) * columns / width).astype(int)]
    return np.asarray(read)


def test_features_are_as_the_model_reads_them(trained: Path, tiny_dataset: Dataset) -> None:  # noqa: F811
    run, frame_id = run_of(trained), tiny_dataset.val.ids[0]
    nearest = see(run, frame_id, "features.sampling=nearest")
    assert nearest.features is not None
    assert nearest.features.of_points is not None
    of_points = nearest.features.of_points[nearest.uv_valid]
    np.testing.assert_array_equal(of_points, of_map(nearest, nearest.uv_valid))
    assert len(np.unique(of_points, axis=0)) > 50
    bilinear = see(run, frame_id)
    assert bilinear.features is not None
    assert not np.array_equal(bilinear.features.of_points, nearest.features.of_points)
    np.testing.assert_array_equal(bilinear.features.of_tokens, nearest.features.of_tokens)
    online = see(run, frame_id, "features.mode=online")
    assert online.features is not None
    apart = np.abs(online.features.of_tokens.astype(int) - bilinear.features.of_tokens)
    assert apart.max() <= 4, "the same map, computed at once"


def test_the_control_of_a_run_is_what_its_view_shows(trained: Path, tiny_dataset: Dataset) -> None:  # noqa: F811
    zero = see(run_of(trained), tiny_dataset.val.ids[0], "features.control=zero")
    assert zero.features is not None
    assert zero.features.of_points is not None
    assert np.unique(zero.features.of_points).tolist() == [128]
    mean = [see(run_of(trained), frame_id, "features.control=mean").features for frame_id in tiny_dataset.val.ids]
    assert mean[0] is not None
    assert mean[1] is not None
    np.testing.assert_array_equal(mean[0].of_tokens, mean[1].of_tokens)
    assert len(np.unique(mean[0].of_tokens)) > 50


def test_the_number_of_panels_and_workers_of_the_run_does_not_matter(trained: Path, tiny_dataset: Dataset) -> None:  # noqa: F811
    frame_id = tiny_dataset.val.ids[0]
    one = see(run_of(trained), frame_id)
    other = see(run_of(trained), frame_id, "tracking.panels=0", "execution.workers=4")
    np.testing.assert_array_equal(one.predicted.of_point, other.predicted.of_point)


def test_a_run_without_weights_sees_nothing(trained: Path, tiny_dataset: Dataset, tmp_path: Path) -> None:  # noqa: F811
    results = Record(tmp_path / "copy")
    shutil.copytree(run_of(trained).path, results.path, ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(DitrError, match="has no weights") as error:
        see(results, tiny_dataset.val.ids[0])
    assert error.value.code is Code.CHECKPOINT
    assert f"ditr run {results.spec} --force" in error.value.fix


def test_data_that_changed_since_the_run_are_told(trained: Path, tiny_dataset: Dataset, tmp_path: Path) -> None:  # noqa: F811
    said: list[str] = []
    see(run_of(trained), tiny_dataset.val.ids[0], say=said.append)
    assert not any("not the data of the run" in line for line in said)
    older = Record(tmp_path / "copy")
    shutil.copytree(run_of(trained).path, older.path)
    result = json.loads(older.result.read_text()) | {"dataset_digest": "0123456789abcdef"}
    older.result.write_text(json.dumps(result))
    finish_anew(older)
    see(older, tiny_dataset.val.ids[0], say=said.append)
    now = tiny_dataset.digest[:12]
    assert f"  not the data of the run: digest {now}, the run had 0123456789ab" in said


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"code_digest": "0123"}, "the class's code"),
        ({"weights_digest": "0123"}, "the 2D source's weights"),
        ({"entry": {"mean": [0, 0, 0], "description": "other words"}}, "the entry in the registry"),
        ({"entry": {"description": "other words"}}, ""),
    ],
)
def test_2d_features_that_are_made_otherwise_since_the_run_are_told(
    change: dict[str, object],
    what: str,
    trained: Path,  # noqa: F811
    tiny_dataset: Dataset,
    tmp_path: Path,
) -> None:
    older = Record(tmp_path / "copy")
    shutil.copytree(run_of(trained).path, older.path)
    facts = json.loads(older.provenance.read_text())
    older.provenance.write_text(json.dumps(facts | {"features": facts["features"] | change}))
    finish_anew(older)
    said: list[str] = []
    see(older, tiny_dataset.val.ids[0], say=said.append)
    told = [line for line in said if "2D features of the run" in line]
    assert told == ([f"  not the 2D features of the run: other than then is {what}"] if what else [])


def test_weights_of_another_model_are_refused(trained: Path, tiny_dataset: Dataset) -> None:  # noqa: F811
    with pytest.raises(DitrError, match="have no place"):
        see(run_of(trained), tiny_dataset.val.ids[0], "fusion.bifusion=null")


def test_a_frame_that_is_not_there_is_refused(trained: Path) -> None:  # noqa: F811
    with pytest.raises(DitrError, match="val has no frame scene0000_00_0 that can be evaluated") as error:
        see(run_of(trained), "scene0000_00_0")
    assert error.value.code is Code.DATASET
