"""Post-processing against loops over the formulas, and the cases where it could quietly go wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ditr.data.batch import Batch, Sample, Targets
from ditr.errors import DitrError
from ditr.evaluation.instances import Instances
from ditr.evaluation.postprocess import instances, matrix_nms
from ditr.model.masks import Level
from ditr.spec.models import EvaluationSpec
from tests.reference.loop_instances import loop_instances
from tests.reference.loop_model import LoopHead, LoopOutput
from tests.reference.padded_outputs import padded

LOOSE = EvaluationSpec(min_points=1)


def output_of(class_logits: Tensor, masks: Tensor, *, level: Level = "point") -> LoopOutput:
    """A sample whose earlier head must not be looked at."""
    decoy = LoopHead(class_logits=-class_logits, masks=-masks, level=level)
    head = LoopHead(class_logits=class_logits, masks=masks, level=level)
    queries = len(class_logits)
    return LoopOutput(
        heads=(decoy, head), semantic_logits=torch.zeros(queries, 201), query_superpoints=torch.arange(queries)
    )


def instances_of(*outputs: LoopOutput, superpoints: Sequence[Tensor], spec: EvaluationSpec) -> list[Instances]:
    """Of samples whose points are in these superpoints."""
    batch = Batch(samples=tuple(sample_in(ids, number) for number, ids in enumerate(superpoints)))
    return instances(padded(outputs, batch), batch, spec=spec)


def sample_in(superpoints: Tensor, number: int) -> Sample:
    points, none = len(superpoints), torch.zeros(0, dtype=torch.int64)
    return Sample(
        frame_id=f"scene0000_00_{number}",
        seed=0,
        xyz=torch.zeros(points, 3),
        colour=torch.zeros(points, 3),
        camera=torch.zeros(3, dtype=torch.float64),
        superpoints=superpoints,
        num_superpoints=int(superpoints.max()) + 1,
        uv=torch.zeros(points, 2),
        uv_valid=torch.zeros(points, dtype=torch.bool),
        map_hw=(480, 640),
        tokens=None,
        targets=Targets(
            instance_of_point=none, instance_of_superpoint=none, class_of_superpoint=none, labels=none, ids=none
        ),
    )


def confident(*probabilities: float) -> Tensor:
    """Class logits (Q, 2) whose softmax of class 0 is the given probability."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], dim=1).float()


def blocks(*rows: str) -> Tensor:
    """Mask logits from drawings: '#' is inside (+6), '.' is outside (-6)."""
    return torch.tensor([[6.0 if cell == "#" else -6.0 for cell in row] for row in rows])


def slow_instances(class_logits, masks, *, spec):  # type: ignore[no-untyped-def]
    """Section 4.6 in loops and double precision: (points of the mask, score), best first."""
    queries = []
    for (thing, nothing), row in zip(class_logits.double().tolist(), masks.double().tolist(), strict=True):
        score = math.exp(thing) / (math.exp(thing) + math.exp(nothing))
        queries.append((score, [1 / (1 + math.exp(-x)) for x in row], row))
    queries = sorted(queries, key=lambda q: -q[0])[: spec.top_k]
    if spec.object_normalization:
        normed = []
        for score, soft, row in queries:
            inside = [p for p, x in zip(soft, row, strict=True) if x > 0]
            normed.append((score * sum(inside) / (len(inside) + 1e-6), soft, row))
        queries = normed
    queries = sorted(queries, key=lambda q: -q[0])
    iou = [[0.0] * len(queries) for _ in queries]
    for i, (_, a, _) in enumerate(queries):
        for j in range(i + 1, len(queries)):
            shared = sum(x * y for x, y in zip(a, queries[j][1], strict=True))
            iou[i][j] = shared / (sum(a) + sum(queries[j][1]) - shared)
    decayed = []
    for j, (score, soft, _) in enumerate(queries):
        decay = min((1 - iou[i][j]) / (1 - max(iou[k][i] for k in range(len(queries)))) for i in range(len(queries)))
        decayed.append((score * decay, soft))
    decayed.sort(key=lambda q: -q[0])
    found = [([p > spec.mask_threshold for p in soft], score) for score, soft in decayed]
    return [(mask, score) for mask, score in found if score > spec.min_score and sum(mask) > spec.min_points]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 12),
    top_k=st.integers(1, 14),
    normalise=st.booleans(),
    min_points=st.integers(1, 8),
    min_score=st.sampled_from([0.0, 0.2]),
)
def test_equals_the_formulas_in_loops(
    seed: int, queries: int, top_k: int, normalise: bool, min_points: int, min_score: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    class_logits = torch.randn(queries, 2, generator=generator)
    masks = torch.randn(queries, 20, generator=generator) * 2
    spec = EvaluationSpec(top_k=top_k, object_normalization=normalise, min_points=min_points, min_score=min_score)
    (found,) = instances_of(output_of(class_logits, masks), superpoints=[torch.arange(20)], spec=spec)
    expected = slow_instances(class_logits, masks, spec=spec)
    assert found.masks.tolist() == [mask for mask, _ in expected]
    np.testing.assert_allclose(found.scores, [score for _, score in expected], rtol=2e-5)


def test_disjoint_masks_keep_their_scores_and_come_out_best_first() -> None:
    output = output_of(confident(0.3, 0.9), blocks("##....", "...###"))
    spec = LOOSE.model_copy(update={"object_normalization": False})
    (found,) = instances_of(output, superpoints=[torch.arange(6)], spec=spec)
    assert found.masks.tolist() == (blocks("...###", "##....") > 0).tolist()
    np.testing.assert_allclose(found.scores, [0.9, 0.3], rtol=5e-3)


def test_the_threshold_is_on_the_probability_and_not_on_the_logit() -> None:
    logit = math.log(0.45 / 0.55)
    output = output_of(confident(0.9), torch.tensor([[6.0, 6.0, logit, -6.0]]))
    (found,) = instances_of(output, superpoints=[torch.arange(4)], spec=LOOSE)
    assert found.masks.tolist() == [[True, True, True, False]]


def test_limits_are_strict() -> None:
    output = output_of(confident(0.9, 0.8), blocks("###...", "...##."))
    (found,) = instances_of(output, superpoints=[torch.arange(6)], spec=EvaluationSpec(min_points=2))
    assert found.masks.sum(axis=1).tolist() == [3]


def test_a_superpoint_level_head_reaches_every_point_and_counts_points() -> None:
    superpoints = torch.tensor([0, 0, 0, 1, 2, 2])
    coarse, fine = (
        instances_of(output, superpoints=[superpoints], spec=LOOSE)[0]
        for output in (
            output_of(confident(0.9, 0.4), blocks("#..", ".##"), level="superpoint"),
            output_of(confident(0.9, 0.4), blocks("###...", "...###")),
        )
    )
    assert coarse.masks.tolist() == fine.masks.tolist()
    assert coarse.scores.tolist() == fine.scores.tolist()


def test_equal_scores_keep_the_order_of_the_queries() -> None:
    rows = blocks("##........", "..##......", "....##....", "......##..", "........##")
    output = output_of(confident(*[0.5] * 5), rows)
    (found,) = instances_of(output, superpoints=[torch.arange(10)], spec=EvaluationSpec(min_points=1, top_k=3))
    assert found.masks.tolist() == (rows[:3] > 0).tolist()


def test_twins_leave_one_instance_and_do_not_suppress_their_neighbours() -> None:
    rows = blocks("####....", "####....", "####....", "....####") * 10  # saturated: the twins' IoU is exactly 1
    (found,) = instances_of(output_of(confident(0.9, 0.8, 0.7, 0.6), rows), superpoints=[torch.arange(8)], spec=LOOSE)
    assert found.masks.tolist() == (rows[[0, 3]] > 0).tolist()
    np.testing.assert_allclose(found.scores, [0.9, 0.6], rtol=1e-5)


def test_empty_masks_are_dropped_and_harm_nobody() -> None:
    rows = torch.cat([torch.full((2, 6), -200.0), blocks("###...")])
    (found,) = instances_of(output_of(confident(0.9, 0.9, 0.5), rows), superpoints=[torch.arange(6)], spec=LOOSE)
    assert found.masks.tolist() == (rows[2:] > 0).tolist()


def test_no_instance_is_an_answer_with_the_right_shapes() -> None:
    output = output_of(confident(0.9), blocks("##...."))
    (found,) = instances_of(output, superpoints=[torch.arange(6)], spec=EvaluationSpec(min_points=100))
    assert (found.masks.shape, found.scores.shape, len(found)) == ((0, 6), (0,), 0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["class_logits", "masks"])
def test_an_output_that_is_not_a_number_is_an_error(where: str, value: float) -> None:
    """Half precision overflows to infinity, of which the softmax and products make NaN."""
    logits, rows = confident(0.9), blocks("##....")
    (logits if where == "class_logits" else rows)[0, 0] = value
    sound = output_of(confident(0.9), blocks("##...."))
    with pytest.raises(DitrError, match="not a number") as error:
        instances_of(sound, output_of(logits, rows), superpoints=[torch.arange(6)] * 2, spec=LOOSE)
    assert error.value.where == "scene0000_00_1"


def test_matrix_nms_by_hand() -> None:
    masks = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    _, (scores,) = matrix_nms(masks[None], torch.tensor([[0.9, 0.8, 0.7]]))
    # IoU(0,1) = IoU(1,2) = 1/3; the second was itself decayed by 2/3, so the third loses (2/3) / (2/3) = nothing
    np.testing.assert_allclose(scores, [0.9, 0.7, 0.8 * 2 / 3], rtol=1e-6)


@pytest.mark.parametrize("level", ["point", "superpoint"])
def test_a_batch_is_its_samples_one_by_one(level: Level) -> None:
    """Which differ in points, superpoints and queries, one of them with a single query."""
    rng = torch.Generator().manual_seed(0)
    sizes = [(300, 20, 20), (200, 30, 12), (250, 8, 1)]
    outputs, superpoints = [], []
    for points, groups, queries in sizes:
        ids = torch.cat([torch.arange(groups), torch.randint(groups, (points - groups,), generator=rng)])
        masks = 3 * torch.randn(queries, groups, generator=rng)
        outputs.append(
            output_of(torch.randn(queries, 2, generator=rng), masks[:, ids] if level == "point" else masks, level=level)
        )
        superpoints.append(ids)
    for spec in (LOOSE, EvaluationSpec(min_points=40, top_k=10, mask_threshold=0.0)):
        together = instances_of(*outputs, superpoints=superpoints, spec=spec)
        for found, output, ids in zip(together, outputs, superpoints, strict=True):
            alone = loop_instances(output, superpoints=ids, spec=spec)
            assert len(alone) > 0
            np.testing.assert_array_equal(found.masks, alone.masks)
            np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-6)
            (same,) = instances_of(output, superpoints=[ids], spec=spec)
            np.testing.assert_array_equal(same.scores, alone.scores, "to the bit, of a batch of one")
