"""The criterion against a loop over samples, heads and queries that follows the reference sentence by sentence."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ditr.data.batch import Batch, Sample, Targets
from ditr.model.output import HeadOutput, ModelOutput, SampleOutput, to_floats
from ditr.spec.models import LossSpec
from ditr.training.criterion import Criterion

ESAM = Criterion(LossSpec(), esam_compat=True)
LEVELS = ("superpoint", "superpoint", "point", "point")


def make_sample(seed: int, *, points: int = 40, superpoints: int = 10, things: int = 3) -> Sample:
    """Superpoint s lies inside thing s % (things + 1), the last residue in none; every point follows its superpoint."""
    rng = torch.Generator().manual_seed(seed)
    superpoint_of = torch.cat(
        (torch.arange(superpoints), torch.randint(superpoints, (points - superpoints,), generator=rng))
    )
    thing_of = torch.arange(superpoints) % (things + 1)
    thing_of[thing_of == things] = -1
    classes = torch.randint(201, (superpoints,), generator=rng)
    targets = Targets(
        instance_of_point=thing_of[superpoint_of],
        instance_masks=thing_of == torch.arange(things)[:, None],
        semantic_masks=classes == torch.arange(201)[:, None],
        labels=torch.zeros(things, dtype=torch.int64),
        ids=torch.arange(1, things + 1),
    )
    return Sample(
        frame_id=f"scene0000_00_{seed}",
        seed=seed,
        xyz=torch.zeros(points, 3),
        colour=torch.zeros(points, 3),
        camera=torch.zeros(3, dtype=torch.float64),
        superpoints=superpoint_of,
        num_superpoints=superpoints,
        uv=torch.zeros(points, 2),
        uv_valid=torch.zeros(points, dtype=torch.bool),
        map_hw=(480, 640),
        tokens=None,
        targets=targets,
    )


def make_output(sample: Sample, *, queries: Tensor | None = None) -> SampleOutput:
    rng = torch.Generator().manual_seed(1000 + sample.seed)
    s, n = sample.num_superpoints, len(sample.xyz)
    chosen = torch.randperm(s, generator=rng)[: s - 2] if queries is None else queries
    q = len(chosen)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng).requires_grad_()

    heads = tuple(
        HeadOutput(class_logits=leaf(q, 2), masks=leaf(q, s if level == "superpoint" else n), level=level)
        for level in LEVELS
    )
    return SampleOutput(heads=heads, semantic_logits=leaf(q, 201), query_superpoints=chosen)


def make_batch(sizes: list[tuple[int, int]]) -> tuple[ModelOutput, Batch]:
    """A batch of (points, things)."""
    samples = tuple(make_sample(i, points=n, things=g) for i, (n, g) in enumerate(sizes))
    outputs = tuple(make_output(sample) for sample in samples)
    return ModelOutput(samples=outputs, balance_loss=None, statistics={}), Batch(samples=samples)


def leaves(output: ModelOutput) -> list[Tensor]:
    tensors = []
    for sample in output.samples:
        tensors += [sample.semantic_logits]
        for head in sample.heads:
            tensors += [head.class_logits, head.masks]
    return tensors


def gradients(loss: Tensor, output: ModelOutput) -> list[Tensor]:
    return [
        torch.zeros_like(leaf) if grad is None else grad
        for leaf, grad in zip(leaves(output), torch.autograd.grad(loss, leaves(output), allow_unused=True), strict=True)
    ]


def reference(output: ModelOutput, batch: Batch) -> tuple[Tensor, Tensor]:
    """inst_loss and seg_loss with ESAM's default weights, by plain means: NaN wherever ESAM's are."""
    b = len(batch)
    inst = torch.zeros(())
    for t in range(4):
        class_terms, bce_terms, dice_terms = [], [], []
        for sample, out in zip(batch, output.samples, strict=True):
            head, targets = out.heads[t], sample.targets
            num_things = len(targets.instance_masks)
            target_class = torch.ones(len(head.class_logits), dtype=torch.int64)
            bces, dices = [], []
            for g in range(num_things):
                truth = targets.instance_masks[g] if head.level == "superpoint" else targets.instance_of_point == g
                truth = truth.float()
                costs = {}
                for q, superpoint in enumerate(out.query_superpoints.tolist()):
                    if targets.instance_masks[g, superpoint]:
                        bce, dice = _mask_terms(head.masks[q], truth)
                        thing = head.class_logits[q].softmax(0)[0]
                        costs[q] = (-0.5 * thing + bce + dice).item()
                if costs:
                    q = min(costs, key=costs.__getitem__)
                    target_class[q] = 0
                    bce, dice = _mask_terms(head.masks[q], truth)
                    bces.append(bce)
                    dices.append(dice)
            class_terms.append(
                functional.cross_entropy(head.class_logits, target_class, weight=torch.tensor([1.0, 0.1]))
            )
            if num_things:
                bce_terms.append(_mean(bces, head.masks))
                dice_terms.append(_mean(dices, head.masks))
        inst = inst + 0.5 * torch.stack(class_terms).mean()
        if bce_terms:
            inst = inst + torch.stack(bce_terms).mean() + (4 if t == 3 else 4 / b) * torch.stack(dice_terms).mean()
    semantic = []
    for sample, out in zip(batch, output.samples, strict=True):
        classes = sample.targets.semantic_masks.int()[:, out.query_superpoints].argmax(0)
        semantic.append(functional.cross_entropy(out.semantic_logits[:, :200], classes, ignore_index=200))
    return inst, 0.5 * torch.stack(semantic).mean()


def _mask_terms(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    p = logits.sigmoid()
    dice = 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
    return functional.binary_cross_entropy_with_logits(logits, truth), dice


def _mean(terms: list[Tensor], masks: Tensor) -> Tensor:
    """The mean; over nothing it is ESAM's: of an empty selection of the masks, NaN with a gradient of zeros."""
    return torch.stack(terms).mean() if terms else masks[torch.zeros(0, dtype=torch.int64)].mean()


@pytest.mark.parametrize(
    "sizes",
    [[(40, 3)], [(40, 3), (55, 2), (33, 4)], [(40, 0), (50, 2)], [(40, 0)], [(30 + i, i % 4) for i in range(16)]],
    ids=["one", "different sizes", "one without things", "no things at all", "sixteen"],
)
def test_equals_the_loop_reference_in_value_and_gradient(sizes: list[tuple[int, int]]) -> None:
    output, batch = make_batch(sizes)
    losses = ESAM(output, batch)
    inst, seg = reference(output, batch)
    assert losses.terms["inst_loss"] == pytest.approx(inst.item(), rel=1e-5)
    assert losses.terms["seg_loss"] == pytest.approx(seg.item(), rel=1e-5)
    assert losses.total.item() == pytest.approx((inst + seg).item(), rel=1e-5)
    for got, expected in zip(gradients(losses.total, output), gradients(inst + seg, output), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("criterion", "batch_size", "aux"),
    [
        (ESAM, 1, 4.0),  # also the last of ESAM's 626 steps
        (ESAM, 5, 0.8),
        (ESAM, 16, 0.25),
        (Criterion(LossSpec()), 1, 0.25),
        (Criterion(LossSpec()), 16, 0.25),
        (Criterion(LossSpec(dice_aux=1.5)), 4, 1.5),
    ],
    ids=["compat 1", "compat 5", "compat 16", "default 1", "default 16", "stated"],
)
def test_dice_weighs_4_in_the_last_head_and_in_compat_4_over_the_step_s_samples_before(
    criterion: Criterion, batch_size: int, aux: float
) -> None:
    output, batch = make_batch([(40, 3)] * batch_size)
    weighted = to_floats(criterion(output, batch).terms)
    plain = to_floats(Criterion(LossSpec(dice_final=1.0, dice_aux=1.0))(output, batch).terms)
    for head, factor in enumerate([aux, aux, aux, 4.0]):
        assert weighted[f"dice_{head}"] == pytest.approx(factor * plain[f"dice_{head}"], rel=1e-6)
        assert weighted[f"bce_{head}"] == plain[f"bce_{head}"]


@pytest.mark.parametrize(("queries", "matched"), [([0], 1), ([3], 0)], ids=["in a thing", "in none"])
def test_a_sample_of_a_single_query_has_a_loss(queries: list[int], matched: int) -> None:
    sample = make_sample(0)
    output = make_output(sample, queries=torch.tensor(queries))
    losses = ESAM(ModelOutput(samples=(output,), balance_loss=None, statistics={}), Batch(samples=(sample,)))
    assert losses.total.isfinite()
    assert losses.unmatched_samples == 1 - matched
    assert (losses.terms["bce_0"] > 0) == bool(matched)


def test_parts_add_up_to_the_instance_loss() -> None:
    terms = to_floats(Criterion(LossSpec())(*make_batch([(40, 3), (50, 2)])).terms)
    parts = [value for name, value in terms.items() if name not in {"inst_loss", "seg_loss"}]
    assert len(parts) == 12
    assert sum(parts) == pytest.approx(terms["inst_loss"], rel=1e-6)


def unlucky_batch() -> tuple[ModelOutput, Batch]:
    """Three samples: an ordinary one, one whose queries all miss the things, one whose queries have no class."""
    samples = [make_sample(i) for i in range(3)]
    no_class = torch.arange(201)[:, None].expand(201, samples[2].num_superpoints) == 200
    samples[2] = dataclasses.replace(
        samples[2], targets=dataclasses.replace(samples[2].targets, semantic_masks=no_class)
    )
    outputs = (make_output(samples[0]), make_output(samples[1], queries=torch.tensor([3, 7])), make_output(samples[2]))
    return ModelOutput(samples=outputs, balance_loss=None, statistics={}), Batch(samples=tuple(samples))


def test_where_esam_is_nan_the_loss_is_finite_counted_and_has_esams_gradient() -> None:
    output, batch = unlucky_batch()
    losses = ESAM(output, batch)
    inst, seg = reference(output, batch)
    assert inst.isnan()
    assert seg.isnan()
    assert losses.total.isfinite()
    assert all(math.isfinite(value) for value in losses.terms.values())
    assert (losses.unmatched_samples, losses.unlabelled_samples) == (1, 1)
    expected = gradients(inst + seg, output)
    assert all(grad.isfinite().all() for grad in expected)
    for got, want in zip(gradients(losses.total, output), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-7)


def test_a_sample_without_a_match_counts_in_the_mean() -> None:
    sample, unlucky = make_sample(0), make_sample(1)
    outputs = (make_output(sample), make_output(unlucky, queries=torch.tensor([3, 7])))
    criterion = Criterion(LossSpec(dice_aux=1.0))
    both = criterion(ModelOutput(samples=outputs, balance_loss=None, statistics={}), Batch(samples=(sample, unlucky)))
    alone = criterion(ModelOutput(samples=outputs[:1], balance_loss=None, statistics={}), Batch(samples=(sample,)))
    for name in ["bce_0", "dice_0", "bce_3", "dice_3"]:
        assert both.terms[name].item() == pytest.approx(alone.terms[name].item() / 2, rel=1e-6)


def test_ordinary_samples_are_not_counted_as_unlucky() -> None:
    losses = Criterion(LossSpec())(*make_batch([(40, 3), (50, 0)]))
    assert (losses.unmatched_samples, losses.unlabelled_samples) == (0, 0)


def test_a_zero_no_object_weight_is_finite_without_a_match() -> None:
    losses = Criterion(LossSpec(no_object=0.0))(*make_batch([(40, 0)]))
    assert losses.terms["inst_loss"] == 0.0
    assert losses.total.isfinite()


def test_the_balance_loss_is_added_and_differentiated() -> None:
    output, batch = make_batch([(40, 3)])
    gate = torch.tensor(0.7, requires_grad=True)
    with_gate = dataclasses.replace(output, balance_loss=3 * gate)
    plain, balanced = Criterion(LossSpec())(output, batch), Criterion(LossSpec())(with_gate, batch)
    assert balanced.terms["balance_loss"] == pytest.approx(2.1)
    assert balanced.total.item() == pytest.approx(plain.total.item() + 2.1, rel=1e-6)
    assert torch.autograd.grad(balanced.total, gate)[0].item() == pytest.approx(3.0)


def test_each_weight_of_the_spec_scales_its_term() -> None:
    output, batch = make_batch([(40, 3), (50, 2)])
    plain = to_floats(Criterion(LossSpec())(output, batch).terms)
    heavy = Criterion(LossSpec(classification=1.5, mask_bce=2.0, mask_dice=5.0, semantic=2.0))
    scaled = to_floats(heavy(output, batch).terms)
    for prefix, factor in {"class": 3.0, "bce": 2.0, "dice": 5.0}.items():
        for head in range(4):
            assert scaled[f"{prefix}_{head}"] == pytest.approx(factor * plain[f"{prefix}_{head}"], rel=1e-6)
    assert scaled["seg_loss"] == pytest.approx(4 * plain["seg_loss"], rel=1e-6)
