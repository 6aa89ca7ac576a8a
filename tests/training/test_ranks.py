"""One training by one rank, by two and by four: the same numbers, whoever begins it and whoever goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ditr.data.batch import as_it_is
from ditr.data.samples import SampleSet
from ditr.errors import Code, DitrError
from ditr.evaluation.evaluate import Evaluation, evaluate
from ditr.model.esam import EsamSingleView
from ditr.progress import silent
from ditr.ranks import ALONE, Alone, RankLost, Ranks
from ditr.spec.fusion import BiFusionSpec, FusionSpec, InjectionSpec
from ditr.spec.models import (
    AugmentationSpec,
    BackboneSpec,
    DatasetSpec,
    DecoderSpec,
    EvaluationSpec,
    ExecutionSpec,
    ModelSpec,
    ScheduleSpec,
    Spec,
)
from ditr.training.fit import fit
from ditr.training.state import TrainingState
from tests.reference.local_ranks import on_ranks
from tests.reference.synthetic_frames import CHANNELS, BoxFrames, tokens

CPU = torch.device("cpu")
LIMIT = 1e-5
Rows = dict[int, dict[str, float]]


class Log:
    def __init__(self) -> None:
        self.rows: Rows = defaultdict(dict)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.rows[step] |= {name: value for name, value in metrics.items() if not name.endswith(("_ms", "_mb"))}


def make_model() -> EsamSingleView:
    """With all that looks beyond one frame: norms of voxels and of those with a feature, dropout, a balanced gate."""
    torch.manual_seed(3)
    fusion = FusionSpec(
        injection=InjectionSpec(scales=(2,), projection="linear_bn_gelu", init="random"),
        bifusion=BiFusionSpec(width=8, balance_weight=1.0),
    )
    model = EsamSingleView(
        ModelSpec(
            voxel_size_m=0.08,
            backbone=BackboneSpec(planes=(4,) * 8, layers=(1,) * 8, stem_channels=4),
            decoder=DecoderSpec(width=8, heads=2, feedforward=8, mask_levels=("superpoint", "point")),
        ),
        fusion=fusion,
        feature_channels=CHANNELS,
        sampling="bilinear",
        query_fraction=0.5,
    )
    nn.init.normal_(model.get_parameter("bifusion.residual.weight"), std=0.1)
    return model


def make_samples(count: int, *, augmented: bool = True) -> SampleSet:
    return SampleSet(
        BoxFrames(count, points=120),  # type: ignore[arg-type]
        seed=3,
        voxel_size_m=0.08,
        augmentation=AugmentationSpec(elastic=None) if augmented else None,
        tokens=tokens,
    )


def train(ranks: Ranks, state: Path, *, frames: int, epochs: int, stop_after: int | None = None) -> Rows:
    """Batches of four frames; what one rank logs until the end, or until a rank has been asked so often to stop."""
    log, asked = Log(), 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return ranks.any(ranks.index == ranks.count - 1 and stop_after is not None and asked > stop_after)

    fit(
        make_model(),
        train=make_samples(frames),
        spec=Spec(
            name="ranks",
            dataset=DatasetSpec(name="none"),
            schedule=ScheduleSpec(epochs=epochs, batch_size=4, validate_every=epochs),
            execution=ExecutionSpec(workers=0),
        ),
        seed=5,
        device=CPU,
        sink=log,
        state=TrainingState(state / "state.pt"),
        encode=as_it_is,
        validate=lambda _: {},
        progress=silent,
        should_stop=should_stop,
        ranks=ranks,
    )
    return dict(log.rows)


def assert_close(found: Rows, wanted: Rows) -> None:
    assert found.keys() == wanted.keys()
    for step, row in wanted.items():
        assert found[step] == pytest.approx(row, rel=LIMIT, abs=1e-7, nan_ok=True), step


def test_ranks_log_what_one_alone_logs_also_where_one_goes_on_for_another(tmp_path: Path) -> None:
    """Batches of 4 and of 1, so that one of the two has no frame in every other step."""
    plan: dict[str, Any] = {"frames": 5, "epochs": 2}
    alone = train(ALONE, tmp_path / "alone", **plan)
    for rows in on_ranks(2, lambda ranks: train(ranks, tmp_path / "two", **plan)):
        assert_close(rows, alone)
    pieces = train(ALONE, tmp_path / "turns", **plan, stop_after=1)
    pieces |= on_ranks(2, lambda ranks: train(ranks, tmp_path / "turns", **plan, stop_after=2))[0]
    assert len(pieces) == 3, "the rank that was asked stops the other"
    pieces |= train(ALONE, tmp_path / "turns", **plan)
    assert_close(pieces, alone)


@pytest.mark.long
def test_so_they_do_over_twenty_steps(tmp_path: Path) -> None:
    plan: dict[str, Any] = {"frames": 21, "epochs": 4}
    alone = train(ALONE, tmp_path / "alone", **plan)
    assert len(alone) == 24
    for count in (2, 4):
        for rows in on_ranks(count, lambda ranks: train(ranks, tmp_path / str(ranks.count), **plan)):
            assert_close(rows, alone)


def scored(ranks: Ranks) -> tuple[Evaluation, int]:
    """Three batches of two frames and one, and how often it was said how far that is."""
    calls: list[str] = []
    torch.manual_seed(1)
    found = evaluate(
        make_model(),
        make_samples(5, augmented=False),
        spec=EvaluationSpec(min_points=5, mask_threshold=0.1, object_normalization=False),
        device=CPU,
        encode=as_it_is,
        workers=0,
        batch_size=2,
        progress=lambda what, done, total: calls.append(what),
        facts=True,
        keep=0,
        ranks=ranks,
    )
    return found, len(calls)


@pytest.mark.parametrize("count", [2, 4])
def test_an_evaluation_that_is_shared_is_the_same_on_every_rank(count: int) -> None:
    alone, _ = scored(ALONE)
    assert len(alone.frames) == 5
    assert sum(row["n_pred"] for row in alone.frames) > 0
    shared = on_ranks(count, scored)
    assert len({calls for _, calls in shared}) == 1, "or who asks the ranks at each call waits for ever"
    for found, _ in shared:
        assert found.scores == alone.scores
        assert found.table.frame_ids == alone.table.frame_ids
        for one, other in zip(found.table.frames, alone.table.frames, strict=True):
            assert all((vars(one)[name] == value).all() for name, value in vars(other).items() if name != "frame_id")
        assert found.instances == alone.instances
        for row, wanted in zip(found.frames, alone.frames, strict=True):
            assert row | {"infer_ms": 0} == wanted | {"infer_ms": 0}


def test_a_rank_that_ends_ends_the_others_with_its_reason() -> None:
    mistake = DitrError("the frame is damaged", code=Code.DATASET, where="scene0000_00_1", fix="restore it")

    def part(ranks: Ranks, why: Exception | None) -> str:
        if ranks.index == 1:
            if why is not None:
                ranks.report(why)
            return "gone"
        try:
            ranks.sums([1.0])
        except (RankLost, DitrError) as error:
            return f"{type(error).__name__}: {error}"
        return "nothing was wrong"

    assert on_ranks(2, lambda ranks: part(ranks, mistake))[0] == f"DitrError: {mistake}"
    assert on_ranks(2, lambda ranks: part(ranks, ValueError("odd")))[0] == "RankLost: rank 1 has failed"
    assert on_ranks(2, lambda ranks: part(ranks, None))[0] == "RankLost: another rank of this run has ended"


def test_what_an_idle_rank_gives_counts_in_no_sum() -> None:
    def part(ranks: Ranks) -> tuple[list[float], list[float], list[list[float]]]:
        given = torch.tensor([1.0, 2.0], requires_grad=True)
        with ranks.idle() if ranks.index else nullcontext():
            total = ranks.total(given if not ranks.index else given * torch.nan)
            (total * torch.tensor([3.0, 5.0])).sum().backward()
            gathered = ranks.gathered(given.detach())
        assert given.grad is not None
        return total.tolist(), given.grad.tolist(), gathered.tolist()

    (total, gradient, gathered), (on_idle, _, _) = on_ranks(2, part)
    assert total == on_idle == [1.0, 2.0]
    assert gradient == [3.0, 5.0], "the loss of the rank that counts alone"
    assert gathered == [[1.0, 2.0], [0.0, 0.0]]


@pytest.mark.parametrize("count", [0, 1, 3, 16, 10_001])
def test_shares_are_even_and_complete(count: int) -> None:
    class Fourth(Alone):
        count = 4

        def __init__(self, index: int) -> None:
            self.index = index

    shares = [Fourth(index).share(count) for index in range(4)]
    assert [at for share in shares for at in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
