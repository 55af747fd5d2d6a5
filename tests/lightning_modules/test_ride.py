"""RIDE's loss against the published code in a loop, and its limits."""

import math

import pytest
import torch
import torch.nn.functional as F

from lightning_modules import ModelError
from lightning_modules.losses import EffectiveNumber, LDAMLoss, RIDELoss
from tests.processes import in_two

COUNTS = (1113, 6705, 514, 327, 1099, 115, 142)
K = len(COUNTS)
WEIGHTED = {"weights": EffectiveNumber(beta=0.9999), "class_counts": COUNTS}
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(3, 12, K, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.arange(12) % K


def softmax(z: list[float], temperature: list[float]) -> list[float]:
    exponentials = [math.exp(x / t) for x, t in zip(z, temperature, strict=True)]
    return [x / sum(exponentials) for x in exponentials]


def in_a_loop(phase: int, diversity: float, gamma: float, alpha: float, margin: float) -> float:
    largest = max(n**-0.25 for n in COUNTS)
    weight = [1.0] * K
    temperature = [alpha] * K
    if phase == 1:
        weight = [(1 - 0.9999) / (1 - 0.9999**n) for n in COUNTS]
        ratio = [gamma * K * n / sum(COUNTS) + 1 - gamma for n in COUNTS]
        temperature = [alpha * r / max(ratio) for r in ratio]
    total = 0.0
    for expert in LOGITS.tolist():
        weighted, weights, divergence = 0.0, 0.0, 0.0
        for i, (z, y) in enumerate(zip(expert, LABELS.tolist(), strict=True)):
            m = 30 * margin * COUNTS[y] ** -0.25 / largest
            lowered = [x - m * (c == y) for c, x in enumerate(z)]
            weighted += -weight[y] * math.log(softmax(lowered, [1.0] * K)[y])
            weights += weight[y]
            q = softmax(LOGITS[:, i].mean(0).tolist(), temperature)
            p = softmax(z, temperature)
            divergence += sum(a * math.log(a / b) for a, b in zip(q, p, strict=True))
        mean = sum(temperature) / K
        total += weighted / weights - diversity * mean**2 * divergence / len(LABELS)
    return total


@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize(("diversity", "gamma", "alpha"), [(0.2, 0.05, 1.0), (0.45, 0.5, 2.0)])
def test_the_published_loss_in_a_loop(phase, diversity, gamma, alpha):
    loss = RIDELoss(diversity=diversity, gamma=gamma, temperature=alpha, max_margin=0.1, **WEIGHTED)
    loss.reweighting = float(phase)
    expected = in_a_loop(phase, diversity, gamma, alpha, margin=0.1)
    assert loss(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-5)


def test_without_diversity_it_is_ldam_of_each_expert():
    soft = F.one_hot(LABELS, K).double().lerp(torch.full((12, K), 1 / K).double(), 0.3)
    for target in (LABELS, soft):
        expected = sum(LDAMLoss(**WEIGHTED)(z, target) for z in LOGITS)
        torch.testing.assert_close(RIDELoss(diversity=0, **WEIGHTED)(LOGITS, target), expected)


def test_equal_experts_and_one_expert_have_no_diversity():
    for logits in (LOGITS[:1], LOGITS[:1].expand(3, -1, -1)):
        found = RIDELoss(COUNTS)(logits, LABELS)
        torch.testing.assert_close(found, RIDELoss(COUNTS, diversity=0)(logits, LABELS))


def test_rare_classes_have_lower_temperatures_in_the_second_phase():
    ratio = RIDELoss(COUNTS, gamma=0.3).ratio
    assert ratio.argsort().tolist() == torch.tensor(COUNTS).argsort().tolist()
    assert ratio.max() == 1
    assert torch.equal(RIDELoss([9] * K, gamma=0.3).ratio, torch.ones(K))
    assert torch.equal(RIDELoss(COUNTS, gamma=0).ratio, torch.ones(K))


def test_the_mean_of_the_experts_has_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    loss = RIDELoss(COUNTS)
    loss.reweighting = 0.0
    loss.divergence(logits).backward()
    p = LOGITS.softmax(2)
    q = LOGITS.mean(0).softmax(1)
    torch.testing.assert_close(logits.grad, (p - q) / 12)  # of sum q (log q - log p), q constant


def test_extreme_logits_in_half_precision_are_finite():
    logits = (1e4 * LOGITS.sign()).half().requires_grad_()
    loss = RIDELoss(**WEIGHTED)(logits, LABELS)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert not RIDELoss(**WEIGHTED).state_dict()


def loss_and_gradient(part: slice) -> tuple[torch.Tensor, torch.Tensor]:
    logits = LOGITS[:, part].clone().requires_grad_()
    loss = RIDELoss(**WEIGHTED)(logits, LABELS[part])
    loss.backward()
    return loss.detach(), logits.grad


def half_of_the_batch(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    return loss_and_gradient(slice(6 * rank, 6 * rank + 6))


def test_two_processes_are_one_with_the_whole_batch():
    loss, gradient = loss_and_gradient(slice(None))
    for rank, (own, own_gradient) in enumerate(in_two(half_of_the_batch)):
        torch.testing.assert_close(own, loss)
        # Data-parallel training takes the mean of the gradients.
        torch.testing.assert_close(own_gradient / 2, gradient[:, 6 * rank : 6 * rank + 6])


def test_options_out_of_range_are_refused():
    for wrong in ({"diversity": -1.0}, {"temperature": 0.0}, {"gamma": 1.0}):
        with pytest.raises(ModelError, match="out of range"):
            RIDELoss(COUNTS, **wrong)
