"""Evaluation end to end on samples made here and a model whose answers are known."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.memory import samples, small_model
from ditr.data.batch import Batch, Sample, Targets, as_it_is
from ditr.data.class_table import SCANNET200
from ditr.data.frame_view import FrameView
from ditr.evaluation.evaluate import Evaluation, evaluate
from ditr.model.output import ModelOutput
from ditr.spec.models import EvaluationSpec
from tests.reference.loop_model import LoopHead, LoopOutput
from tests.reference.padded_outputs import padded

SPEC = EvaluationSpec(min_points=10)
CPU = torch.device("cpu")


class OnDisk:
    """Where the frames would be."""

    root = Path("no/such/folder")
    classes = SCANNET200


class Frames:
    """Stands in for a SampleSet: 60 points one metre apart in front of a camera at the origin.

    Two instances have 20 of them and a small one 5; the rest is void.
    """

    seed = 0
    epoch = 0
    augmented = False

    def __init__(self, count: int) -> None:
        self.count = count
        self.frames = OnDisk()

    def set_epoch(self, epoch: int) -> None:
        assert epoch == self.epoch

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index >= self.count:
            raise IndexError(index)
        truth = torch.tensor([0] * 20 + [1] * 20 + [2] * 5 + [-1] * 15)
        valid = torch.arange(60) < 45
        return Sample(
            frame_id=f"scene000{index // 2}_00_{index}",
            seed=index,
            xyz=torch.arange(60)[:, None] * torch.tensor([0.0, 0.0, 1.0]),
            colour=torch.zeros(60, 3),
            camera=torch.zeros(3, dtype=torch.float64),
            superpoints=torch.arange(60) // 5,
            num_superpoints=12,
            uv=torch.rand(60, 2),
            uv_valid=valid,
            map_hw=(480, 640),
            tokens=None,
            targets=Targets(
                instance_of_point=truth,
                instance_of_superpoint=torch.full((12,), -1),
                class_of_superpoint=torch.full((12,), 200),
                labels=torch.tensor([0, 2, 187]),
                ids=torch.tensor([7, 9, 12]),
            ),
            depth_ok_ratio=1.0,
            boundary_ok_ratio=0.75,
        )


class Answers(nn.Module):
    """Answers with mask logits made from the sample's own ground truth."""

    def __init__(self, masks: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.masks = masks
        self.reported = {"fusion_2d_ratio": 0.25}
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, batch: Batch) -> ModelOutput:
        self.modes.append((self.training, torch.is_grad_enabled()))
        assert len(batch) == 1
        masks = self.masks(batch.samples[0].targets.instance_of_point)
        head = LoopHead(class_logits=torch.tensor([[3.0, 0.0]]).repeat(len(masks), 1), masks=masks, level="point")
        sample = LoopOutput(
            heads=(head,), semantic_logits=torch.zeros(len(masks), 201), query_superpoints=torch.arange(len(masks))
        )
        statistics = {name: torch.tensor(value) for name, value in self.reported.items()}
        return padded([sample], batch, statistics=statistics)


def perfect(truth: Tensor) -> Tensor:
    return (truth == torch.arange(3)[:, None]) * 40.0 - 20.0


def run(masks: Callable[[Tensor], Tensor], *, count: int = 3, keep: int = 0, facts: bool = False) -> Evaluation:
    return evaluate(
        Answers(masks), Frames(count), spec=SPEC, device=CPU, encode=as_it_is, workers=0, keep=keep, facts=facts
    )  # type: ignore[arg-type]


def test_augmented_samples_are_not_scored() -> None:
    frames = Frames(1)
    frames.augmented = True
    with pytest.raises(AssertionError, match="augmented"):
        evaluate(Answers(perfect), frames, spec=SPEC, device=CPU, encode=as_it_is, workers=0)  # type: ignore[arg-type]


def test_a_perfect_model_scores_one_and_every_frame_says_what_it_held() -> None:
    found = run(perfect)
    assert (found.scores.ap, found.scores.ap50, found.scores.ap25) == pytest.approx((1, 1, 1))
    assert found.table.frame_ids == ("scene0000_00_0", "scene0000_00_1", "scene0001_00_2")
    last = dict(found.frames[2])
    assert last.pop("infer_ms") > 0
    assert last == {
        "frame_id": "scene0001_00_2",
        "scene": "scene0001_00",
        "n_points": 60,
        "n_void": 15,
        "n_superpoints": 12,
        "n_gt": 2,
        "n_gt_small": 1,
        "n_pred": 2,
        "best_iou": pytest.approx(1.0),
        "valid_ratio": 0.75,
        "depth_ok": 1.0,
        "boundary_ok": 0.75,
        "fusion_2d_ratio": 0.25,
    }
    assert found.statistics["valid_ratio"] == pytest.approx(0.75)
    assert found.statistics["fusion_2d_ratio"] == pytest.approx(0.25)
    assert found.statistics["n_pred"] == pytest.approx(2)


def test_every_instance_says_what_it_is_like() -> None:
    first, second, small = run(perfect, count=1, facts=True).instances
    assert first == {
        "frame_id": "scene0000_00_0",
        "instance": 0,
        "n_points": 20,
        "size_m": 19.0,
        "distance_m": 9.5,
        "valid_ratio": 1.0,
        "class_name": "chair",
        "frequency": "head",
        "texture_only": None,
        "best_iou": pytest.approx(1.0),
    }
    assert (second["n_points"], second["valid_ratio"], second["distance_m"]) == (20, 1.0, 29.5)
    assert (small["n_points"], small["valid_ratio"], small["best_iou"]) == (5, 1.0, 0.0)
    assert (second["class_name"], second["frequency"]) == ("door", "head")
    assert (small["class_name"], small["frequency"]) == ("case of water bottles", "tail")
    assert run(perfect, count=1).instances == (), "nobody asked"


def test_frames_without_a_prediction_score_zero() -> None:
    found = run(lambda truth: torch.full((4, len(truth)), -20.0))
    assert (found.scores.ap, found.scores.ap50, found.scores.ap25) == (0, 0, 0)
    assert [(row["n_pred"], row["best_iou"]) for row in found.frames] == [(0, 0.0)] * 3


def test_half_right_is_half_scored() -> None:
    found = run(lambda truth: perfect(truth)[1:2])
    assert found.scores.ap50 == pytest.approx(0.5)
    assert found.frames[0]["best_iou"] == pytest.approx(0.5)


def test_the_time_is_the_median_of_the_frames() -> None:
    found = run(perfect)
    assert found.infer_ms == sorted(row["infer_ms"] for row in found.frames)[1]
    assert math.isnan(run(perfect, count=0).infer_ms)


def test_frames_all_over_the_split_are_kept_for_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def view_of(frames: OnDisk, index: int) -> FrameView:
        truth = np.zeros(60, dtype=np.int64)  # what the data say is not what counts
        image, uv, valid = np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((60, 2), dtype=np.float32), np.arange(60) < 45
        return FrameView(frame_id=f"frame {index}", image=image, uv=uv, uv_valid=valid, instance_of_point=truth)

    monkeypatch.setattr("ditr.evaluation.instances.view_of", view_of)
    found = run(perfect, keep=2)
    assert [kept.frame_id for kept in found.views] == ["frame 0", "frame 2"]
    kept = found.views[0]
    truth = [0] * 20 + [1] * 20 + [2] * 5 + [-1] * 15
    assert kept.instance_of_point.tolist() == truth
    assert kept.predicted.of_point.tolist() == [one if one < 2 else -1 for one in truth]
    assert kept.predicted.partner.tolist() == [0, 1]
    assert kept.features is None


@pytest.mark.parametrize("training", [True, False])
def test_the_model_evaluates_without_gradients_and_goes_back_to_its_mode(training: bool) -> None:
    model = Answers(perfect).train(training)
    evaluate(model, Frames(2), spec=SPEC, device=CPU, encode=as_it_is, workers=0)  # type: ignore[arg-type]
    assert model.modes == [(False, False)] * 2
    assert model.training is training


def test_a_model_that_fails_still_goes_back_to_its_mode() -> None:
    model = Answers(lambda truth: torch.zeros(1, 7)).train()
    with pytest.raises(AssertionError, match="7 mask positions for 60 points"):
        evaluate(model, Frames(1), spec=SPEC, device=CPU, encode=as_it_is, workers=0)  # type: ignore[arg-type]
    assert model.training


def test_each_frame_is_encoded_alone_before_the_model_and_in_the_models_time() -> None:
    encoded: list[str] = []

    def encode(batch: Batch) -> Batch:
        (sample,) = batch
        encoded.append(sample.frame_id)
        time.sleep(0.05)
        return Batch(samples=(replace(sample, seed=99),))

    model = Answers(perfect)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].samples[0].seed))
    found = evaluate(model, Frames(2), spec=SPEC, device=CPU, encode=encode, workers=0)  # type: ignore[arg-type]
    assert encoded == ["scene0000_00_0", "scene0000_00_1"]
    assert seen == [99, 99], "the model gets what was encoded"
    assert found.infer_ms > 50


def test_frames_in_batches_are_the_frames_one_by_one() -> None:
    """Statistics of the fusion, matches and scores, too; batch norm is that of evaluation, so only rounding differs."""
    model, frames = small_model("minkowski"), samples(5, points=400, augmented=False)
    for parameter in model.parameters():  # parts that start at zero shall say something
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))

    def found(batch_size: int) -> Evaluation:
        spec = EvaluationSpec(min_points=5)
        return evaluate(
            model, frames, spec=spec, batch_size=batch_size, device=CPU, encode=as_it_is, workers=0, facts=True
        )

    alone, together = found(1), found(4)
    assert len(alone.frames) == 5
    assert any(len(frame.scores) for frame in alone.table.frames)
    for one, other in zip(alone.table.frames, together.table.frames, strict=True):
        for name, value in vars(one).items():
            close = np.testing.assert_allclose if name == "scores" else np.testing.assert_array_equal
            close(vars(other)[name], value, **({"rtol": 1e-4} if name == "scores" else {}))
    for row, other_row in zip(alone.frames, together.frames, strict=True):
        assert row.keys() == other_row.keys()
        for name in row.keys() - {"infer_ms", "frame_id", "scene"}:
            assert other_row[name] == pytest.approx(row[name], rel=1e-4), name
        assert other_row["frame_id"] == row["frame_id"]
        assert row["injection_s2_relative_norm"] > 0
    assert len({row["fusion_2d_ratio"] for row in together.frames}) == 5, "each frame's own"
    assert alone.instances == together.instances
    assert alone.scores == together.scores
    assert together.infer_ms > 0


def test_progress_counts_whole_batches() -> None:
    calls: list[int] = []
    evaluate(
        small_model("minkowski"),
        samples(3, points=300, augmented=False),
        spec=EvaluationSpec(),
        batch_size=2,
        device=CPU,
        encode=as_it_is,
        workers=0,
        progress=lambda what, done, total: calls.append(done),
    )
    assert calls == [0, 2, 3]


def test_progress_ends_at_the_total() -> None:
    calls: list[tuple[str, int, int]] = []
    evaluate(
        Answers(perfect),
        Frames(2),  # type: ignore[arg-type]
        spec=SPEC,
        device=CPU,
        encode=as_it_is,
        workers=0,
        progress=lambda what, done, total: calls.append((what, done, total)),
    )
    assert calls == [("evaluate", 0, 2), ("evaluate", 1, 2), ("evaluate", 2, 2)]


def test_a_ratio_that_a_frame_does_not_have_is_left_out_of_the_mean() -> None:
    model = Answers(perfect)
    numbers = iter([0.5, math.nan, 0.25])
    model.register_forward_pre_hook(lambda *_: model.reported.update(fusion_2d_ratio=next(numbers)))
    found = evaluate(model, Frames(3), spec=SPEC, device=CPU, encode=as_it_is, workers=0)  # type: ignore[arg-type]
    assert [row["fusion_2d_ratio"] for row in found.frames] == [0.5, None, 0.25]
    assert found.statistics["fusion_2d_ratio"] == pytest.approx(0.375)
