"""Losses against their papers: printed numbers, limits and identities."""

import itertools
import math

import pytest
import torch
from sklearn.metrics import f1_score
from torch.nn import functional as F

from lightning_modules import losses

# Barata and Santiago's training images and the classes of their batch of 16.
SLIDE = {"nv": 6741, "mel": 1119, "bkl": 1101, "bcc": 517, "akiec": 331, "vasc": 143, "df": 116}
GRID = torch.tensor([0, 1, 2, 3, 4, 5, 6]).repeat_interleave(torch.tensor([5, 3, 3, 2, 1, 1, 1]))
HAM10000 = (6705, 1113, 1099, 514, 327, 142, 115)  # in the same order
K = 7


def sample(seed: int = 0, batch: int = 12):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, K, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, K, (batch,), generator=generator)


def close(ours, expected, tolerance: float = 1e-6) -> bool:
    return math.isclose(float(ours), float(expected), rel_tol=tolerance, abs_tol=tolerance)


def weights_of(criterion, target):
    """Weights of the samples in the mean: gradient by each sample's loss, times the batch size."""
    each = torch.zeros(len(target), requires_grad=True)
    (gradient,) = torch.autograd.grad(criterion.mean(each, target), each)
    return gradient * len(target)


@pytest.mark.parametrize(
    ("weights", "printed", "exact"),
    [
        (
            losses.EffectiveNumber(),
            (0.11, 0.51, 0.52, 1.08, 1.67, 3.82, 4.71),
            (0.1105, 0.5125, 0.5204, 1.0770, 1.6668, 3.8224, 4.7058),
        ),
        (  # VASC is printed as 3.90
            losses.InverseFrequency(),
            (0.08, 0.50, 0.51, 1.08, 1.69, 3.91, 4.81),
            (0.0828, 0.4991, 0.5072, 1.0802, 1.6872, 3.9052, 4.8142),
        ),
    ],
)
def test_weights_are_those_of_the_slides(weights, printed, exact):
    criterion = losses.CrossEntropyLoss(weights=weights, class_counts=list(SLIDE.values()))
    found = weights_of(criterion, GRID)
    assert found.sum().item() == pytest.approx(16)
    first = [(c == GRID).nonzero()[0].item() for c in range(K)]
    assert found[first].tolist() == pytest.approx(exact, abs=6e-5)
    assert [round(w, 2) for w in found[first].tolist()] == list(printed)


def test_class_mean_is_that_of_cui():
    criterion = losses.CrossEntropyLoss(
        weights=losses.EffectiveNumber(), normalize="class", class_counts=HAM10000
    )
    expected = (0.0621, 0.2882, 0.2917, 0.6059, 0.9437, 2.1532, 2.6552)
    assert criterion.class_weights.tolist() == pytest.approx(expected, abs=6e-5)
    logits, target = sample()
    each = F.cross_entropy(logits, target, reduction="none")
    assert close(criterion(logits, target), (criterion.class_weights[target] * each).mean())


@pytest.mark.parametrize("weights", [losses.InverseFrequency(), losses.EffectiveNumber(0.999)])
def test_batch_mean_is_pytorchs_weighted_mean(weights):
    criterion = losses.CrossEntropyLoss(weights=weights, class_counts=HAM10000)
    logits, target = sample()
    expected = F.cross_entropy(logits, target, weight=weights(HAM10000))
    assert close(criterion(logits, target), expected)
    one = F.cross_entropy(logits[:1], target[:1])
    assert close(criterion(logits[:1], target[:1]), one)


def test_ends_of_the_effective_number():
    assert losses.EffectiveNumber(0.0)(HAM10000).tolist() == [1.0] * K
    towards_one = losses.EffectiveNumber(1 - 1e-9)(HAM10000)
    assert (towards_one * torch.tensor(HAM10000)).tolist() == pytest.approx([1.0] * K, rel=1e-5)
    naive = [(1 - 0.99) / (1 - 0.99**n) for n in HAM10000]
    assert losses.EffectiveNumber(0.99)(HAM10000).tolist() == pytest.approx(naive)
    with pytest.raises(ValueError, match="beta"):
        losses.EffectiveNumber(1.0)


def test_weights_need_counts():
    with pytest.raises(ValueError, match="class_counts"):
        losses.FocalLoss(weights=losses.InverseFrequency())


@pytest.mark.parametrize(("p", "expected"), [(0.25, 0.779791), (0.5, 0.173287), (0.9, 0.001054)])
def test_focal_values(p, expected):
    logits = torch.tensor([[p, 1 - p]]).log()
    assert losses.FocalLoss(gamma=2)(logits, torch.tensor([0])).item() == pytest.approx(
        expected, abs=1e-6
    )


def test_selections_solve_their_objectives():
    """Compare with all v in {0, 1}^M. OHEM as in its slides, a minimization, selects nothing."""
    logits, target = sample(batch=8)
    each = F.cross_entropy(logits, target, reduction="none")
    threshold = each.median().item() + 1e-3
    choices = [torch.tensor(v).double() for v in itertools.product((0, 1), repeat=8)]

    def gain(v):
        return ((v * each).sum() - threshold * v.sum()).item() / 8

    def slide(v):
        return ((v * each).sum() + threshold * v.sum()).item() / 8

    easy, hard = min(choices, key=gain), max(choices, key=gain)
    spl, ohem = losses.SelfPacedLoss(threshold=threshold), losses.OHEMLoss(threshold=threshold)
    assert spl.select(each).tolist() == easy.bool().tolist()
    assert ohem.select(each).tolist() == hard.bool().tolist()
    assert (easy + hard).tolist() == [1] * 8
    assert min(choices, key=slide).sum() == 0
    assert close(spl(logits, target), (easy * each).sum() / 8)
    assert close(ohem(logits, target), (hard * each).sum() / 8)


@pytest.mark.parametrize(("quantile", "kept"), [(0.05, 1), (0.3, 3), (0.5, 5), (0.99, 9), (1, 10)])
def test_shares_of_a_batch(quantile, kept):
    each = F.cross_entropy(*sample(batch=10), reduction="none")
    easy = losses.SelfPacedLoss(quantile=quantile).select(each)
    assert easy.sum() == kept
    assert each[easy].max() <= each.sort().values[kept - 1]
    hard = losses.OHEMLoss(keep=1 - kept / 10 if kept < 10 else 0).select(each)
    assert hard.sum() == max(1, 10 - kept)
    assert kept == 10 or (easy ^ hard).all()


def test_selection_is_by_cross_entropy_and_average_is_chosen():
    logits, target = sample()
    each, focal = F.cross_entropy(logits, target, reduction="none"), losses.FocalLoss(gamma=5)
    hardest = each.argsort(descending=True)[:3]
    expected = sum(focal(logits[j : j + 1], target[j : j + 1]) for j in hardest)
    ohem = {a: losses.OHEMLoss(loss=focal, keep=0.25, average=a) for a in ("all", "selected")}
    assert close(ohem["all"](logits, target), expected / 12)
    assert close(ohem["selected"](logits, target), expected / 3)
    weighted = losses.FocalLoss(weights=losses.InverseFrequency(), class_counts=HAM10000)
    with pytest.raises(ValueError, match="OHEMLoss"):
        losses.OHEMLoss(loss=weighted)


def test_weights_and_selection_together():
    logits, target = sample()
    w, each = 1 / torch.tensor(HAM10000)[target], F.cross_entropy(logits, target, reduction="none")
    easy = each <= each.sort().values[5]
    for average, counted in (("all", torch.ones(12)), ("selected", easy)):
        criterion = losses.SelfPacedLoss(
            average=average, weights=losses.InverseFrequency(), class_counts=HAM10000
        )
        assert close(criterion(logits, target), (w * easy * each).sum() / (w * counted).sum())


def test_ties_are_chosen_together():
    """A classifier that starts at zero has equal losses for all samples and must still learn."""
    same = torch.full((8,), math.log(K))
    assert losses.SelfPacedLoss(quantile=0.5).select(same).all()
    assert losses.OHEMLoss(keep=0.5).select(same).all()


@pytest.mark.parametrize("average", ["all", "selected"])
def test_empty_selection_has_loss_and_gradient_zero(average):
    logits, target = sample()
    logits.requires_grad_()
    loss = losses.OHEMLoss(threshold=math.inf, average=average)(logits, target)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_age_is_a_moving_average_that_checkpoints_hold():
    criterion = losses.SelfPacedLoss(quantile=0.5, momentum=0.9)
    criterion.select(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert criterion.age.item() == 2
    chosen = criterion.select(torch.tensor([2.05, 2.15, 7.0, 8.0]))
    assert criterion.age.item() == pytest.approx(0.9 * 2 + 0.1 * 2.15)
    assert not chosen.any()  # half of this batch would be selected, but none is below average
    assert criterion.state_dict().keys() == {"age"}
    criterion.eval().select(torch.tensor([9.0, 9.0]))
    assert criterion.age.item() == pytest.approx(2.015)


def test_smoothing_of_ham10000():
    names = {
        "concave": (0.3, 0.0707, 0.0697, 0.0285, 0.0152, 0.0019, 0),
        "linear": (0.3, 0.0454, 0.0448, 0.0182, 0.0097, 0.0012, 0),
    }
    for shape, expected in names.items():
        criterion = losses.LabelAwareSmoothingLoss(HAM10000, head=0.3, tail=0.0, shape=shape)
        assert criterion.smoothing.tolist() == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize("shape", ["concave", "linear", "convex", "exp"])
def test_shapes_of_smoothing_keep_their_ends(shape):
    criterion = losses.LabelAwareSmoothingLoss(HAM10000, head=0.4, tail=0.1, shape=shape)
    epsilon = criterion.smoothing
    assert (epsilon[0].item(), epsilon[-1].item()) == pytest.approx((0.4, 0.1))
    assert (epsilon.diff() <= 0).all()
    x = (1113 - 115) / (6705 - 115)
    middle = {
        "concave": 0.1 + 0.3 * math.sin(math.pi * x / 2),
        "linear": 0.1 + 0.3 * x,
        "convex": 0.4 + 0.3 * math.sin(1.5 * math.pi + math.pi * x / 2),
        "exp": 0.1 + 0.3 * x**2,
    }
    assert epsilon[1].item() == pytest.approx(middle[shape])


def test_equal_ends_of_smoothing_are_pytorchs():
    logits, target = sample()
    ends = {"head": 0.2, "tail": 0.2}
    code = losses.LabelAwareSmoothingLoss(HAM10000, **ends, spread="all")
    assert close(code(logits, target), F.cross_entropy(logits, target, label_smoothing=0.2))
    paper = losses.LabelAwareSmoothingLoss(HAM10000, **ends)
    smooth = 0.2 * K / (K - 1)
    assert close(paper(logits, target), F.cross_entropy(logits, target, label_smoothing=smooth))


def test_soft_f1_of_decisions_is_macro_f1():
    logits, target = sample(batch=40)
    target[target == 5] = 4  # absent classes are left out
    decided = F.one_hot(logits.argmax(1), K)
    occur = [c for c in range(K) if (target == c).any()]
    expected = f1_score(target, logits.argmax(1), labels=occur, average="macro")
    criterion = losses.SoftMacroF1Loss()
    assert close(criterion(1e4 * decided.double(), target), 1 - expected)
    assert criterion(1e4 * F.one_hot(target, K).double(), target) == 0


def test_costs_are_validated():
    for costs in ([[0, 1]], [[0, -1], [1, 0]], [[0, 0], [1, 0]]):
        with pytest.raises(ValueError, match="[Cc]osts"):
            losses.ExpectedCostLoss(costs)


def test_expected_zero_one_cost_is_the_probability_of_a_mistake():
    logits, target = sample()
    p = logits.softmax(1).gather(1, target[:, None])
    assert close(losses.ExpectedCostLoss((1 - torch.eye(K)).tolist())(logits, target), 1 - p.mean())


def test_csl_is_class_balanced_and_costs_are_row_sums():
    logits, target = sample()
    balanced = F.cross_entropy(logits, target, weight=1 / torch.tensor(HAM10000).double())
    assert close(losses.CostSensitiveLoss(class_counts=HAM10000)(logits, target), balanced)
    costs = torch.rand(K, K)
    expected = F.cross_entropy(logits, target, weight=costs.sum(1).double())
    assert close(losses.CostSensitiveLoss(costs.tolist())(logits, target), expected)


def test_logit_adjustment_at_tau_one_is_balanced_softmax():
    logits, target = sample()
    counts = torch.tensor(HAM10000)
    p = counts * logits.exp() / (counts * logits.exp()).sum(1, keepdim=True)
    expected = -p.gather(1, target[:, None]).log().mean()
    assert close(losses.LogitAdjustedLoss(HAM10000)(logits, target), expected)


def test_sigmoid_eql_without_rare_classes_is_binary_cross_entropy():
    logits, target = sample()
    y = F.one_hot(target, K).double()
    each = F.binary_cross_entropy_with_logits(logits, y, reduction="none").sum(1)
    assert close(losses.EqualizationLoss(HAM10000, threshold=0.0)(logits, target), each.mean())


def test_rare_classes_learn_nothing_from_other_images():
    logits, _ = sample()
    target = torch.zeros(len(logits), dtype=torch.long)
    for criterion in (
        losses.EqualizationLoss(HAM10000),
        losses.SoftmaxEqualizationLoss(HAM10000, gamma=1.0),
    ):
        z = logits.clone().requires_grad_()
        criterion(z, target).backward()
        assert z.grad[:, 1:4].all()
        assert not z.grad[:, 4:].any()  # akiec, vasc, df
