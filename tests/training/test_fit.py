"""The loop: what it logs, when it validates, and that stopping anywhere changes no bit."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor, nn

from ditr.data.batch import Batch, Sample, as_it_is
from ditr.data.samples import SampleSet
from ditr.errors import Code, DitrError
from ditr.model.esam import EsamSingleView
from ditr.model.output import ModelOutput
from ditr.progress import silent
from ditr.spec.fusion import FusionSpec, InjectionSpec
from ditr.spec.models import (
    AugmentationSpec,
    BackboneSpec,
    DatasetSpec,
    DecoderSpec,
    ExecutionSpec,
    ImageAugmentationSpec,
    ModelSpec,
    ScheduleSpec,
    Spec,
)
from ditr.training.fit import FETCH_EVERY_S, FitResult, fit
from ditr.training.schedule import learning_rate
from ditr.training.state import TrainingState
from tests.reference.loop_model import LoopHead, LoopOutput
from tests.reference.padded_outputs import padded
from tests.reference.synthetic_frames import SeenFrames

CPU = torch.device("cpu")
PLAIN = FusionSpec()
STEPS, EPOCHS = 3, 3  # 5 samples in batches of 2, validated after epochs 2 and 3
PLAN = {"seed": 5, "epochs": EPOCHS, "batch_size": 2, "samples": 5}

MakeSamples = Callable[..., SampleSet]


class TinyModel(nn.Module):
    """The forward contract, small, with what makes resuming hard: dropout, batch statistics, indexed gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        self.classes, self.semantics = nn.Linear(16, 2), nn.Linear(16, 201)

    def forward(self, batch: Batch) -> ModelOutput:
        statistics = {"valid_ratio": torch.tensor(0.25)}
        return padded([self._one(sample) for sample in batch], batch, statistics=statistics)

    def _one(self, sample: Sample) -> LoopOutput:
        features = self.points(torch.cat((sample.xyz, sample.colour), dim=1))  # (N, 16)
        count = sample.num_superpoints
        pooled = torch.zeros(count, 16).index_add(0, sample.superpoints, features)
        queries = torch.randperm(count, generator=torch.Generator().manual_seed(sample.seed))[: count - 1]
        q = pooled[queries]
        heads = (
            LoopHead(class_logits=self.classes(q), masks=q @ pooled.T / 16, level="superpoint"),
            LoopHead(class_logits=self.classes(q), masks=q @ features.T / 16, level="point"),
        )
        return LoopOutput(heads=heads, semantic_logits=self.semantics(q), query_superpoints=queries)


class Log:
    """A sink that keeps everything; a step logged again must say the same, clocks and memory apart."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = defaultdict(dict)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if not name.endswith(("_ms", "_mb")):
                assert self.rows[step].setdefault(name, value) == value, (step, name)
            else:
                self.rows[step][name] = value

    def numbers(self) -> dict[int, dict[str, float]]:
        return {
            step: {name: value for name, value in row.items() if not name.endswith(("_ms", "_mb"))}
            for step, row in self.rows.items()
        }


def make_spec(*, epochs: int = EPOCHS, validate_every: int = 2, batch_size: int = 2) -> Spec:
    return Spec(
        name="tiny",
        dataset=DatasetSpec(name="none"),
        schedule=ScheduleSpec(epochs=epochs, batch_size=batch_size, learning_rate=1e-2, validate_every=validate_every),
        execution=ExecutionSpec(workers=0),
    )


def tiny_model() -> TinyModel:
    torch.manual_seed(11)
    return TinyModel()


class Training:
    """One run that may be stopped and started; each start builds everything anew, as a new process would."""

    def __init__(
        self,
        folder: Path,
        samples: Callable[[], SampleSet],
        *,
        spec: Spec | None = None,
        model: Callable[[], nn.Module] = tiny_model,
        encode: Callable[[Batch], Batch] = as_it_is,
    ) -> None:
        self.state, self.samples, self.make_model = TrainingState(folder / "state.pt"), samples, model
        self.spec = spec or make_spec()
        self.encode = encode
        self.log, self.validated = Log(), list[int]()
        self.model = model()

    def start(self, *, stop_after: int | None = None) -> FitResult:
        """Train until the end, or until should_stop has been asked more than ``stop_after`` times."""
        asked = 0

        def should_stop() -> bool:
            nonlocal asked
            asked += 1
            return stop_after is not None and asked > stop_after

        def validate(epochs_done: int) -> dict[str, float]:
            self.validated.append(epochs_done)
            self.model.eval()
            torch.rand(3)  # a validation may use the global generator
            return {"checksum": sum(float(p.detach().double().sum()) for p in self.model.parameters())}

        self.model = self.make_model()
        return fit(
            self.model,
            train=self.samples(),
            spec=self.spec,
            seed=5,
            device=CPU,
            sink=self.log,
            state=self.state,
            encode=self.encode,
            validate=validate,
            progress=silent,
            should_stop=should_stop,
        )

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()


def assert_equal_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


@pytest.fixture
def training(tmp_path: Path, make_samples: MakeSamples) -> Callable[[str], Training]:
    return lambda name: Training(tmp_path / name, lambda: make_samples(5))


def test_logs_every_step_every_epoch_and_every_validation(training: Callable[[str], Training]) -> None:
    run = training("whole")
    result = run.start()
    assert (result.finished, result.epochs_done) == (True, EPOCHS)
    assert result.step_ms > 0
    assert result.peak_mem_mb > 50
    assert run.validated == [2, 3]
    rows = run.log.rows
    assert sorted(rows) == list(range(1, STEPS * EPOCHS + 1))
    per_step = {"loss", "inst_loss", "seg_loss", "class_0", "bce_1", "dice_1", "lr", "grad_norm", "step_ms", "data_ms"}
    per_step |= {"points", "queries", "unmatched_samples", "unlabelled_samples", "valid_ratio", "depth_ok_ratio"}
    for step, row in rows.items():
        assert {f"train/{name}" for name in per_step} <= row.keys()
        assert row["train/lr"] == learning_rate(run.spec.schedule, (step - 1) // STEPS)
        assert row["train/valid_ratio"] == 0.25
    assert [rows[step]["train/points"] for step in (1, 2, 3)] == [800, 800, 400]  # no sample is dropped
    for epoch in range(1, EPOCHS + 1):
        row, steps = rows[epoch * STEPS], range((epoch - 1) * STEPS + 1, epoch * STEPS + 1)
        assert row["epoch/loss"] == pytest.approx(sum(rows[step]["train/loss"] for step in steps) / STEPS)
        assert row["epoch/peak_mem_mb"] > 50
        assert ("val/checksum" in row) == (epoch in (2, 3))


def test_same_seed_same_bits(training: Callable[[str], Training]) -> None:
    one, two = training("one"), training("two")
    one.start()
    two.start()
    assert_equal_bits(one.weights(), two.weights())
    assert one.log.numbers() == two.log.numbers()


def test_stopping_anywhere_changes_no_bit(training: Callable[[str], Training]) -> None:
    whole = training("whole")
    whole.start()
    polls = STEPS * EPOCHS + 2  # each step and each validation asks once
    for stop_after in range(polls):
        run = training(f"stopped-{stop_after}")
        assert not run.start(stop_after=stop_after).finished
        assert run.start().finished
        assert_equal_bits(whole.weights(), run.weights())
        assert run.log.numbers() == whole.log.numbers()
        assert run.validated == [2, 3]


def test_stopping_again_and_again_changes_no_bit(training: Callable[[str], Training]) -> None:
    whole, run = training("whole"), training("stopped")
    whole.start()
    starts = 1
    while not run.start(stop_after=2).finished:
        starts += 1
    assert starts > 4
    assert_equal_bits(whole.weights(), run.weights())
    assert run.log.numbers() == whole.log.numbers()
    assert run.validated == [2, 3]


@pytest.mark.parametrize("at_step", [1, 4, 5, 9])
def test_being_killed_repeats_steps_with_the_same_numbers(training: Callable[[str], Training], at_step: int) -> None:
    whole, run = training("whole"), training("killed")
    whole.start()

    log = run.log.log

    def die(step: int, metrics: Mapping[str, float]) -> None:
        log(step, metrics)
        if step == at_step:
            raise MemoryError

    run.log.log = die  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        run.start()
    run.log.log = log  # type: ignore[method-assign]
    assert run.start().finished
    assert_equal_bits(whole.weights(), run.weights())
    assert run.log.numbers() == whole.log.numbers()


def test_reading_by_other_processes_changes_no_bit_and_they_end_with_the_training(
    tmp_path: Path, make_samples: MakeSamples
) -> None:
    def readers() -> set[int]:
        return {one.pid for one in psutil.Process().children(recursive=True) if "forkserver" in " ".join(one.cmdline())}

    spec = make_spec()
    helped = spec.model_copy(update={"execution": ExecutionSpec(workers=2)})
    whole = Training(tmp_path / "alone", lambda: make_samples(5), spec=spec)
    run = Training(tmp_path / "helped", lambda: make_samples(5), spec=helped)
    whole.start()
    assert not run.start(stop_after=5).finished  # in the second epoch: they have read on into it
    servers = readers()  # the one that workers come from stays
    assert run.start().finished
    assert readers() == servers
    assert len(servers) <= 1
    assert_equal_bits(whole.weights(), run.weights())
    assert run.log.numbers() == whole.log.numbers()


def test_a_finished_training_is_not_trained_again(training: Callable[[str], Training]) -> None:
    run = training("done")
    first = run.start()
    weights = {name: tensor.clone() for name, tensor in run.weights().items()}
    again = run.start()
    assert again == first
    assert run.validated == [2, 3]
    assert_equal_bits(weights, run.weights())


@pytest.mark.parametrize("esam_compat", [True, False])
def test_the_last_epoch_trains_unless_it_is_esams_at_rate_zero(
    tmp_path: Path, make_samples: MakeSamples, esam_compat: bool
) -> None:
    spec = make_spec().model_copy(update={"esam_compat": esam_compat})
    run = Training(tmp_path, lambda: make_samples(5), spec=spec)
    assert not run.start(stop_after=STEPS * (EPOCHS - 1) + 1).finished  # all steps of two epochs and a validation
    before = {name: tensor.clone() for name, tensor in run.weights().items()}
    run.start()
    moved = {name for name, tensor in run.weights().items() if not torch.equal(tensor, before[name])}
    statistics = {"points.1.running_mean", "points.1.running_var", "points.1.num_batches_tracked"}
    assert moved == (statistics if esam_compat else set(before))


def test_in_compat_the_earlier_heads_dice_weighs_4_over_the_samples_of_the_step(
    tmp_path: Path, make_samples: MakeSamples
) -> None:
    def dice(*, esam_compat: bool) -> list[float]:
        spec = make_spec(epochs=1)
        schedule = spec.schedule.model_copy(update={"learning_rate": 1e-12})  # so that all steps see the same weights
        spec = spec.model_copy(update={"schedule": schedule, "esam_compat": esam_compat})
        run = Training(tmp_path / str(esam_compat), lambda: make_samples(5), spec=spec)
        run.start()
        return [run.log.rows[step]["train/dice_0"] for step in (1, 2, 3)]

    pairs = zip(dice(esam_compat=True), dice(esam_compat=False), strict=True)
    assert [compat / default * 0.25 for compat, default in pairs] == pytest.approx([4 / 2, 4 / 2, 4 / 1], rel=1e-5)


def test_weight_decay_shrinks_every_parameter(tmp_path: Path, make_samples: MakeSamples) -> None:
    def away_from_zero() -> TinyModel:
        model = tiny_model()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1  # biases of norms start at 0, where no decay shows
        return model

    def moved(weight_decay: float) -> dict[str, Tensor]:
        spec = make_spec(epochs=1, batch_size=5)
        schedule = spec.schedule.model_copy(update={"weight_decay": weight_decay})
        spec = spec.model_copy(update={"schedule": schedule})
        run = Training(tmp_path / str(weight_decay), lambda: make_samples(5), spec=spec, model=away_from_zero)
        run.start()
        return run.weights()

    start, plain, decayed = dict(away_from_zero().named_parameters()), moved(0.0), moved(0.5)
    for name, parameter in start.items():
        torch.testing.assert_close(plain[name] - decayed[name], 1e-2 * 0.5 * parameter.detach(), rtol=1e-3, atol=1e-6)


def test_clipping_bounds_the_update_and_logs_the_norm_before_it(tmp_path: Path, make_samples: MakeSamples) -> None:
    spec = make_spec(epochs=1, batch_size=5)
    spec = spec.model_copy(update={"schedule": spec.schedule.model_copy(update={"grad_clip_norm": 1e-3})})
    run = Training(tmp_path, lambda: make_samples(5), spec=spec)
    run.start()
    grads = torch.cat([parameter.grad.flatten() for parameter in run.model.parameters() if parameter.grad is not None])
    assert grads.norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert run.log.rows[1]["train/grad_norm"] > 1e-2


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_with_the_frames(
    tmp_path: Path, make_samples: MakeSamples, where: str
) -> None:
    class Broken(TinyModel):
        def forward(self, batch: Batch) -> ModelOutput:
            output = super().forward(batch)
            zero = self.classes.weight.sum() * 0
            # the root's slope at 0 is infinite
            return replace(output, fusion_losses={"balance_loss": zero / zero if where == "loss" else zero.sqrt()})

    run = Training(tmp_path, lambda: make_samples(2), model=Broken)
    with pytest.raises(DitrError, match=where) as error:
        run.start()
    assert error.value.code is Code.RUN
    assert "scene0000_00_0" in error.value.where
    assert "scene0000_00_1" in error.value.where
    assert "inst_loss" in error.value.what
    assert not run.state.path.exists(), "no state with such weights is saved"


@pytest.fixture
def fetching_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU whose epochs last less than a fetch interval."""
    monkeypatch.setitem(FETCH_EVERY_S, "cpu", 3600.0)


@pytest.mark.usefixtures("fetching_late")
def test_numbers_that_are_fetched_late_are_the_same_and_none_is_lost_by_a_stop(
    training: Callable[[str], Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    def logged(run: Training, *, stop_after: int | None = None) -> dict[int, dict[str, float]]:
        run.start(stop_after=stop_after)
        return run.log.numbers()

    late, stopped = logged(training("late")), logged(training("stopped"), stop_after=2)
    monkeypatch.setitem(FETCH_EVERY_S, "cpu", 0.0)
    each_step = logged(training("each step"))
    assert late == each_step
    assert list(late) == sorted(late), "in order"
    assert stopped == {step: each_step[step] for step in (1, 2)}


class Diverging(TinyModel):
    """Its loss is not a number from its fourth step on; an error ends the sixth if it may."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.fails = fails
        self.frames: list[tuple[str, ...]] = []

    def forward(self, batch: Batch, voxels: None = None) -> ModelOutput:
        self.frames.append(batch.frame_ids)
        if self.fails and len(self.frames) == 6:
            raise RuntimeError("no index for what is not a number")
        output = super().forward(batch)
        bad = math.nan if len(self.frames) >= 4 else 0.0
        return replace(output, fusion_losses={"balance_loss": self.classes.weight.sum() * bad})


@pytest.mark.usefixtures("fetching_late")
@pytest.mark.parametrize("fails", [False, True], ids=["goes on", "fails by it"])
def test_who_diverged_between_two_fetches_is_told_by_its_first_bad_step(
    tmp_path: Path, make_samples: MakeSamples, fails: bool
) -> None:
    run = Training(tmp_path, lambda: make_samples(5), model=lambda: Diverging(fails=fails))
    with pytest.raises(DitrError, match="the loss is nan; terms: inst_loss") as error:
        run.start()
    model = run.model
    assert isinstance(model, Diverging)
    assert len(model.frames) == 6, "the steps of the epoch had been made"
    assert error.value.where == ", ".join(model.frames[3])
    assert sorted(run.log.rows) == [1, 2, 3], "what was good is logged"
    model.frames.clear()
    run.state.restore(model=model, optimizer=torch.optim.AdamW(model.parameters()), plan=PLAN)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_progress_counts_the_steps_of_each_epoch_also_after_a_stop(tmp_path: Path, make_samples: MakeSamples) -> None:
    seen: list[tuple[str, int, int]] = []
    for stop in (True, False):
        fit(
            tiny_model(),
            train=make_samples(5),
            spec=make_spec(epochs=1),
            seed=5,
            device=CPU,
            sink=Log(),
            state=TrainingState(tmp_path / "state.pt"),
            encode=as_it_is,
            validate=lambda epoch: {},
            progress=lambda what, done, total: seen.append((what, done, total)),
            should_stop=lambda stop=stop: stop and seen[-1][1] == 2,  # type: ignore[misc]
        )
    assert seen == [("epoch 1/1", done, STEPS) for done in (0, 1, 2, 2, 3)]


def test_the_tiny_model_learns(tmp_path: Path, make_samples: MakeSamples) -> None:
    run = Training(
        tmp_path, lambda: make_samples(2, augmented=False), spec=make_spec(epochs=40, validate_every=40, batch_size=2)
    )
    run.start()
    rows = run.log.rows
    assert rows[40]["epoch/loss"] < 0.5 * rows[1]["epoch/loss"]
    assert all(math.isfinite(value) for row in rows.values() for value in row.values())


def small_esam(fusion: FusionSpec = PLAIN, *, feature_channels: int | None = None) -> EsamSingleView:
    torch.manual_seed(11)
    spec = ModelSpec(
        voxel_size_m=0.05,
        backbone=BackboneSpec(planes=(8, 8, 16, 16, 16, 16, 8, 8), layers=(1,) * 8, stem_channels=8),
        decoder=DecoderSpec(width=32, heads=2, feedforward=32),
    )
    return EsamSingleView(
        spec, fusion=fusion, feature_channels=feature_channels, sampling="bilinear", query_fraction=0.5
    )


def test_the_real_model_learns_and_stopping_it_changes_no_bit(tmp_path: Path, make_samples: MakeSamples) -> None:
    def start(name: str) -> Training:
        spec = make_spec(epochs=6, validate_every=6, batch_size=2)
        return Training(
            tmp_path / name, lambda: make_samples(2, points=800, augmented=False), spec=spec, model=small_esam
        )

    whole, run = start("whole"), start("stopped")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # where the sparse library's sums would come in any order
    try:
        whole.start()
        assert not run.start(stop_after=3).finished
        assert run.start().finished
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert_equal_bits(whole.weights(), run.weights())
    assert run.log.numbers() == whole.log.numbers()
    assert whole.log.rows[6]["epoch/loss"] < 0.9 * whole.log.rows[1]["epoch/loss"]


def with_one_feature(batch: Batch) -> Batch:
    """The first point of the first sample reads one; no other point does."""
    samples = []
    for index, sample in enumerate(batch):
        valid = torch.arange(len(sample.xyz)) == -index
        samples.append(replace(sample, uv_valid=valid, tokens=torch.ones(3, 2, 2).half()))
    return Batch(samples=tuple(samples))


def test_a_norm_over_one_voxel_is_an_error_that_names_the_frames(tmp_path: Path, make_samples: MakeSamples) -> None:
    fusion = FusionSpec(injection=InjectionSpec(scales=(2,), projection="linear_bn_gelu"))
    run = Training(
        tmp_path,
        lambda: make_samples(2),
        model=lambda: small_esam(fusion, feature_channels=3),
        encode=with_one_feature,
    )
    with pytest.raises(DitrError, match="only one voxel of the batch has a 2D feature at injection_s2") as error:
        run.start()
    assert error.value.code is Code.FEATURES
    assert sorted(error.value.where.split(", ")) == sorted(make_samples(2).frames.ids)


class SeeingModel(TinyModel):
    """Reads the mean of a sample's map too, so that its weights depend on every map."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Linear(3, 6)

    def _one(self, sample: Sample) -> LoopOutput:
        assert sample.tokens is not None
        assert sample.image is None
        seen = self.seen(sample.tokens.float().mean(dim=(1, 2)))
        return super()._one(replace(sample, xyz=sample.xyz + seen[:3], colour=sample.colour + seen[3:]))


def encode(batch: Batch) -> Batch:
    """Maps of one token: the mean colour of the image."""
    return Batch(samples=tuple(replace(one, tokens=mean_colour(one), image=None) for one in batch))


def mean_colour(sample: Sample) -> Tensor:
    assert sample.image is not None
    return (sample.image.float().mean(dim=(0, 1)) / 255).half()[:, None, None]


def seeing_model() -> SeeingModel:
    torch.manual_seed(11)
    return SeeingModel()


def test_maps_computed_online_of_augmented_images_are_the_same_after_a_stop(tmp_path: Path) -> None:
    def start(name: str, jitter: ImageAugmentationSpec | None) -> Training:
        samples = SampleSet(
            SeenFrames(3, points=200),  # type: ignore[arg-type]
            seed=3,
            voxel_size_m=0.05,
            augmentation=AugmentationSpec(elastic=None),
            tokens=None,
            images=True,
            image_augmentation=jitter,
        )
        return Training(tmp_path / name, lambda: samples, model=seeing_model, encode=encode)

    whole, run, plain = (
        start(n, j) for n, j in (("a", ImageAugmentationSpec()), ("b", ImageAugmentationSpec()), ("c", None))
    )
    for training in (whole, plain):
        assert training.start().finished
    while not run.start(stop_after=2).finished:
        pass
    assert_equal_bits(whole.weights(), run.weights())
    assert whole.log.numbers() == run.log.numbers()
    assert not torch.equal(whole.weights()["seen.weight"], plain.weights()["seen.weight"]), "jitter takes part"
    assert set(whole.weights()) == set(seeing_model().state_dict())


def test_steps_on_the_cpu_sum_in_a_fixed_order(tmp_path: Path, make_samples: MakeSamples) -> None:
    """The races this prevents show only now and then, so the guard itself is looked at."""
    filling = torch.utils.deterministic

    def settings() -> tuple[int, bool, bool]:
        return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), filling.fill_uninitialized_memory

    seen, convolving = set(), set()

    def observed() -> EsamSingleView:
        model = small_esam()
        model.register_forward_pre_hook(lambda *_: seen.add(settings()))
        model.backbone.register_forward_pre_hook(lambda *_: convolving.add(torch.get_num_threads()))
        return model

    before, threads = settings(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Training(tmp_path, lambda: make_samples(2), spec=make_spec(epochs=1), model=observed).start()
    finally:
        torch.set_num_threads(threads)
    assert seen == {(2, True, False)}
    assert convolving == {1}, "MinkowskiEngine lists pairs in the order in which threads come"
    assert settings() == before
