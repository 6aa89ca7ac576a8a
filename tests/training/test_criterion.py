"""The criterion against a loop over samples, heads and queries that follows the reference sentence by sentence."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ditr.data.batch import Batch, Sample
from ditr.errors import DitrError
from ditr.model.masks import Level
from ditr.model.output import to_floats
from ditr.spec.models import LossSpec
from ditr.training.criterion import Criterion, Losses
from tests.reference.labelled_frames import labelled_frame
from tests.reference.loop_model import LoopHead, LoopOutput
from tests.reference.padded_outputs import padded

ESAM = Criterion(LossSpec(), esam_compat=True)
LEVELS: tuple[Level, ...] = ("superpoint", "superpoint", "point", "point")


def make_output(sample: Sample, *, queries: Tensor | None = None) -> LoopOutput:
    rng = torch.Generator().manual_seed(1000 + sample.seed)
    s, n = sample.num_superpoints, len(sample.xyz)
    chosen = torch.randperm(s, generator=rng)[: s - 2] if queries is None else queries
    q = len(chosen)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng).requires_grad_()

    heads = tuple(
        LoopHead(class_logits=leaf(q, 2), masks=leaf(q, s if level == "superpoint" else n), level=level)
        for level in LEVELS
    )
    return LoopOutput(heads=heads, semantic_logits=leaf(q, 201), query_superpoints=chosen)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a model could have said of a batch."""

    outputs: tuple[LoopOutput, ...]
    samples: tuple[Sample, ...]

    def loss(self, criterion: Criterion, **fusion_losses: Tensor) -> Losses:
        batch = Batch(samples=self.samples)
        return criterion(padded(self.outputs, batch, fusion_losses=fusion_losses), batch)


def make_case(sizes: list[tuple[int, int]]) -> Case:
    """A batch of (points, things)."""
    samples = tuple(labelled_frame(i, points=n, things=g) for i, (n, g) in enumerate(sizes))
    return Case(outputs=tuple(make_output(sample) for sample in samples), samples=samples)


def leaves(case: Case) -> list[Tensor]:
    tensors = []
    for sample in case.outputs:
        tensors += [sample.semantic_logits]
        for head in sample.heads:
            tensors += [head.class_logits, head.masks]
    return tensors


def gradients(loss: Tensor, case: Case) -> list[Tensor]:
    return [
        torch.zeros_like(leaf) if grad is None else grad
        for leaf, grad in zip(leaves(case), torch.autograd.grad(loss, leaves(case), allow_unused=True), strict=True)
    ]


def reference(case: Case) -> tuple[Tensor, Tensor]:
    """inst_loss and seg_loss with ESAM's default weights, by plain means: NaN wherever ESAM's are."""
    b = len(case.samples)
    inst = torch.zeros(())
    for t in range(4):
        class_terms, bce_terms, dice_terms = [], [], []
        for sample, out in zip(case.samples, case.outputs, strict=True):
            head, targets = out.heads[t], sample.targets
            num_things = len(targets.ids)
            target_class = torch.ones(len(head.class_logits), dtype=torch.int64)
            bces, dices = [], []
            for g in range(num_things):
                of_level = {"superpoint": targets.instance_of_superpoint, "point": targets.instance_of_point}
                truth = (of_level[head.level] == g).float()
                costs = {}
                for q, superpoint in enumerate(out.query_superpoints.tolist()):
                    if targets.instance_of_superpoint[superpoint] == g:
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
    for sample, out in zip(case.samples, case.outputs, strict=True):
        classes = sample.targets.class_of_superpoint[out.query_superpoints]
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
    case = make_case(sizes)
    losses = case.loss(ESAM)
    inst, seg = reference(case)
    assert losses.terms["inst_loss"] == pytest.approx(inst.item(), rel=1e-5)
    assert losses.terms["seg_loss"] == pytest.approx(seg.item(), rel=1e-5)
    assert losses.total.item() == pytest.approx((inst + seg).item(), rel=1e-5)
    for got, expected in zip(gradients(losses.total, case), gradients(inst + seg, case), strict=True):
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
    case = make_case([(40, 3)] * batch_size)
    weighted = to_floats(case.loss(criterion).terms)
    plain = to_floats(case.loss(Criterion(LossSpec(dice_final=1.0, dice_aux=1.0))).terms)
    for head, factor in enumerate([aux, aux, aux, 4.0]):
        assert weighted[f"dice_{head}"] == pytest.approx(factor * plain[f"dice_{head}"], rel=1e-6)
        assert weighted[f"bce_{head}"] == plain[f"bce_{head}"]


@pytest.mark.parametrize(("queries", "matched"), [([0], 1), ([3], 0)], ids=["in a thing", "in none"])
def test_a_sample_of_a_single_query_has_a_loss(queries: list[int], matched: int) -> None:
    sample = labelled_frame(0)
    output = make_output(sample, queries=torch.tensor(queries))
    losses = Case(outputs=(output,), samples=(sample,)).loss(ESAM)
    assert losses.total.isfinite()
    assert losses.unmatched_samples == 1 - matched
    assert (losses.terms["bce_0"] > 0) == bool(matched)


def test_parts_add_up_to_the_instance_loss() -> None:
    terms = to_floats(make_case([(40, 3), (50, 2)]).loss(Criterion(LossSpec())).terms)
    parts = [value for name, value in terms.items() if name not in {"inst_loss", "seg_loss"}]
    assert len(parts) == 12
    assert sum(parts) == pytest.approx(terms["inst_loss"], rel=1e-6)


def unlucky() -> Case:
    """Three samples: an ordinary one, one whose queries all miss the things, one whose queries have no class."""
    samples = [labelled_frame(i) for i in range(3)]
    no_class = torch.full((samples[2].num_superpoints,), 200)
    samples[2] = replace(samples[2], targets=replace(samples[2].targets, class_of_superpoint=no_class))
    outputs = (make_output(samples[0]), make_output(samples[1], queries=torch.tensor([3, 7])), make_output(samples[2]))
    return Case(outputs=outputs, samples=tuple(samples))


def test_where_esam_is_nan_the_loss_is_finite_counted_and_has_esams_gradient() -> None:
    case = unlucky()
    losses = case.loss(ESAM)
    inst, seg = reference(case)
    assert inst.isnan()
    assert seg.isnan()
    assert losses.total.isfinite()
    assert all(math.isfinite(value) for value in losses.terms.values())
    assert (losses.unmatched_samples, losses.unlabelled_samples) == (1, 1)
    expected = gradients(inst + seg, case)
    assert all(grad.isfinite().all() for grad in expected)
    for got, want in zip(gradients(losses.total, case), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-7)


def test_a_sample_without_a_match_counts_in_the_mean() -> None:
    samples = labelled_frame(0), labelled_frame(1)
    outputs = (make_output(samples[0]), make_output(samples[1], queries=torch.tensor([3, 7])))
    criterion = Criterion(LossSpec(dice_aux=1.0))
    both = Case(outputs=outputs, samples=samples).loss(criterion)
    alone = Case(outputs=outputs[:1], samples=samples[:1]).loss(criterion)
    for name in ["bce_0", "dice_0", "bce_3", "dice_3"]:
        assert both.terms[name].item() == pytest.approx(alone.terms[name].item() / 2, rel=1e-6)


def test_ordinary_samples_are_not_counted_as_unlucky() -> None:
    losses = make_case([(40, 3), (50, 0)]).loss(Criterion(LossSpec()))
    assert (losses.unmatched_samples, losses.unlabelled_samples) == (0, 0)


def test_a_zero_no_object_weight_is_finite_without_a_match() -> None:
    losses = make_case([(40, 0)]).loss(Criterion(LossSpec(no_object=0.0)))
    assert losses.terms["inst_loss"] == 0.0
    assert losses.total.isfinite()


def test_a_loss_of_the_fusion_is_added_and_differentiated() -> None:
    case, criterion = make_case([(40, 3)]), Criterion(LossSpec())
    gate = torch.tensor(0.7, requires_grad=True)
    plain, balanced = case.loss(criterion), case.loss(criterion, balance_loss=3 * gate)
    assert balanced.terms["balance_loss"] == pytest.approx(2.1)
    assert balanced.total.item() == pytest.approx(plain.total.item() + 2.1, rel=1e-6)
    assert torch.autograd.grad(balanced.total, gate)[0].item() == pytest.approx(3.0)
    for name in ("inst_loss", "dice_3"):
        with pytest.raises(DitrError, match=f"a fusion part calls a loss {name}"):
            case.loss(criterion, **{name: gate})


def test_each_weight_of_the_spec_scales_its_term() -> None:
    case = make_case([(40, 3), (50, 2)])
    plain = to_floats(case.loss(Criterion(LossSpec())).terms)
    heavy = Criterion(LossSpec(classification=1.5, mask_bce=2.0, mask_dice=5.0, semantic=2.0))
    scaled = to_floats(case.loss(heavy).terms)
    for prefix, factor in {"class": 3.0, "bce": 2.0, "dice": 5.0}.items():
        for head in range(4):
            assert scaled[f"{prefix}_{head}"] == pytest.approx(factor * plain[f"{prefix}_{head}"], rel=1e-6)
    assert scaled["seg_loss"] == pytest.approx(4 * plain["seg_loss"], rel=1e-6)
