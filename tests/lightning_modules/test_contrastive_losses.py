"""Contrastive losses against loops written from their papers, and against each other."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from lightning_modules.losses import BalancedContrastiveLoss, PaCoLoss, SupConLoss
from lightning_modules.losses.contrastive import ContrastiveBatch

K, D = 7, 16
COUNTS = [1113, 6705, 514, 327, 1099, 115, 142]
LOSSES = {
    "SupCon": SupConLoss(0.1),
    "PaCo": PaCoLoss(COUNTS, temperature=0.1),
    "PaCo, alpha 0": PaCoLoss(COUNTS, alpha=0.0, gamma=0.0),
    "BCL": BalancedContrastiveLoss(K, 0.1),
}


def sphere(rows: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, D, dtype=torch.float64), dim=1)


def contrast(size: int = 12, queue: int = 9, label: torch.Tensor | None = None) -> ContrastiveBatch:
    """Two views of ``size`` images, all of them anchors, and a queue with four empty slots."""
    torch.manual_seed(0)
    label = torch.randint(0, K - 1, (size,)) if label is None else label  # class 6 is absent
    logits = torch.randn(2 * len(label), K, dtype=torch.float64)
    pairs = ContrastiveBatch.of_all(sphere(2 * len(label)), label.repeat(2), logits)
    queued = torch.randint(0, K - 1, (queue,))
    queued[-4:] = -1
    return pairs.beside(sphere(queue), queued)


def changed(c: ContrastiveBatch, **values: torch.Tensor) -> ContrastiveBatch:
    names = ("anchors", "label", "logits", "keys", "key_label", "own")
    return ContrastiveBatch(**({name: getattr(c, name) for name in names} | values))


def others(c: ContrastiveBatch, i: int) -> list[int]:
    return [a for a in range(len(c.keys)) if a != c.own[i] and c.key_label[a] != -1]


def exp(c: ContrastiveBatch, i: int, a: int, temperature: float) -> float:
    return math.exp(c.anchors[i] @ c.keys[a] / temperature)


def supcon_by_hand(c: ContrastiveBatch, temperature: float = 0.1) -> float:
    losses = []
    for i, label in enumerate(c.label):
        positives = [a for a in others(c, i) if c.key_label[a] == label]
        total = sum(exp(c, i, a, temperature) for a in others(c, i))
        if positives:
            terms = [-math.log(exp(c, i, p, temperature) / total) for p in positives]
            losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses)


def bcl_by_hand(c: ContrastiveBatch, temperature: float = 0.1) -> float:
    losses = []
    for i, label in enumerate(c.label):
        classes = [[a for a in others(c, i) if c.key_label[a] == j] for j in range(K)]
        total = sum(
            sum(exp(c, i, a, temperature) for a in own) / len(own) for own in classes if own
        )
        positives = classes[label]
        if positives:
            terms = [-math.log(exp(c, i, p, temperature) / total) for p in positives]
            losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses)


def paco_by_hand(c: ContrastiveBatch, alpha=0.05, beta=1.0, gamma=1.0, temperature=0.1) -> float:
    prior = [n / sum(COUNTS) for n in COUNTS]
    losses = []
    for i, label in enumerate(c.label):
        centres = [math.exp(c.logits[i, j]) * prior[j] for j in range(K)]
        total = sum(centres) + gamma * sum(exp(c, i, a, temperature) for a in others(c, i))
        positives = [a for a in others(c, i) if c.key_label[a] == label]
        terms = [beta * math.log(centres[label] / total)]
        terms += [alpha * math.log(exp(c, i, p, temperature) / total) for p in positives]
        losses.append(-sum(terms) / (beta + alpha * len(positives)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        (SupConLoss(0.1), supcon_by_hand),
        (BalancedContrastiveLoss(K, 0.1), bcl_by_hand),
        (PaCoLoss(COUNTS, temperature=0.1), paco_by_hand),
        (
            PaCoLoss(COUNTS, alpha=0.5, beta=2.0, gamma=0.3, temperature=0.1),
            partial(paco_by_hand, alpha=0.5, beta=2.0, gamma=0.3),
        ),
    ],
)
def test_against_a_loop(loss, by_hand):
    c = contrast()
    assert loss(c).item() == pytest.approx(by_hand(c), rel=1e-6)


def test_supcon_of_distinct_labels_is_nt_xent():
    c = contrast(label=torch.arange(12))
    c = ContrastiveBatch.of_all(c.anchors, c.label, c.logits)
    similarity = c.anchors @ c.anchors.T / 0.1
    similarity.fill_diagonal_(-torch.inf)
    expected = F.cross_entropy(similarity, torch.arange(24).roll(12))
    assert SupConLoss(0.1)(c).item() == pytest.approx(expected.item(), rel=1e-12)


def test_equal_features():
    c = contrast(label=torch.tensor([1, 1, 1, 1, 1, 1, 0, 0, 2, 3, 4, 5]))
    same = ContrastiveBatch.of_all(c.anchors[:1].expand(24, -1), c.label, c.logits)
    assert SupConLoss(0.1)(same).item() == pytest.approx(math.log(23))
    balanced = same.beside(c.anchors[:1].expand(K, -1), torch.arange(K))
    assert BalancedContrastiveLoss(K)(balanced).item() == pytest.approx(math.log(K))
    log_prior = (torch.tensor(COUNTS) / sum(COUNTS)).log()
    total = math.log(1 + 0.7 * 23 * math.exp(1 / 0.2))
    count = (c.label == c.label[:, None]).sum(1) - 1
    by_class = 1.5 * (log_prior[c.label] - total) + 0.05 * count * (1 / 0.2 - total)
    expected = (-by_class / (1.5 + 0.05 * count)).mean()
    paco = PaCoLoss(COUNTS, beta=1.5, gamma=0.7)(changed(same, logits=torch.zeros(24, K)))
    assert paco.item() == pytest.approx(expected.item(), rel=1e-5)


def test_paco_without_keys_is_logit_adjusted_cross_entropy():
    c = contrast()
    log_prior = (torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)).log()
    expected = F.cross_entropy(c.logits + log_prior, c.label)
    loss = PaCoLoss(COUNTS, alpha=0.0, gamma=0.0)(c)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_paco_without_centres_is_supcon():
    c = contrast()
    loss = PaCoLoss(COUNTS, alpha=1.0, beta=0.0, temperature=0.1)
    nowhere = torch.full_like(c.logits, -1e4)
    found = loss(changed(c, logits=nowhere))
    assert found.item() == pytest.approx(SupConLoss(0.1)(c).item(), rel=1e-9)


def test_bcl_duplicates_of_a_class_that_lies_on_its_prototype_change_nothing():
    c, prototypes = contrast(label=torch.tensor([0, 1, 2, 3, 4])), sphere(K)
    anchors, label = c.anchors.clone(), c.label
    anchors[label == 1] = prototypes[1]
    few = ContrastiveBatch.of_all(anchors, label, c.logits)
    copies = torch.cat([anchors, anchors[label == 1].repeat(5, 1)])
    labels = torch.cat([label, label.new_ones(10)])
    many = changed(few, keys=copies, key_label=labels)
    rest = [changed(x, anchors=anchors[label != 1], label=label[label != 1],
                    own=x.own[label != 1]).beside(prototypes, torch.arange(K))
            for x in (few, many)]  # fmt: skip
    bcl, supcon = ([loss(x).item() for x in rest] for loss in (LOSSES["BCL"], LOSSES["SupCon"]))
    assert bcl[0] == pytest.approx(bcl[1], rel=1e-12)
    assert supcon[0] != pytest.approx(supcon[1], rel=0.01)


def test_bcl_with_one_key_of_each_class_is_supcon():
    c = contrast(label=torch.arange(K - 1))
    alone = torch.full_like(c.label, -1)
    prototypes = changed(c, keys=sphere(K), key_label=torch.arange(K), own=alone)
    loss = LOSSES["BCL"](prototypes).item()
    assert loss == pytest.approx(LOSSES["SupCon"](prototypes).item(), rel=1e-12)
    assert LOSSES["BCL"](c).item() != pytest.approx(LOSSES["SupCon"](c).item(), rel=0.01)


def test_prior_of_ham10000():
    expected = [-2.1970, -0.4012, -2.9696, -3.4219, -2.2097, -4.4669, -4.2560]
    assert LOSSES["PaCo"].log_prior.tolist() == pytest.approx(expected, abs=5e-5)


def test_supcon_is_at_least_the_log_of_its_positives():
    c = contrast(label=torch.zeros(12, dtype=torch.long), queue=4)
    assert SupConLoss(0.1)(c).item() > math.log(23)
    equal = ContrastiveBatch.of_all(c.anchors[:1].expand(24, -1), c.label, c.logits)
    assert SupConLoss(0.1)(equal).item() == pytest.approx(math.log(23))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_rotations_and_permutations_change_nothing(loss):
    c = contrast()
    rotation = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64)).Q
    turned = changed(c, anchors=c.anchors @ rotation, keys=c.keys @ rotation)
    assert loss(turned).item() == pytest.approx(loss(c).item(), rel=1e-12)
    order = torch.randperm(len(c.keys))
    moved = changed(c, keys=c.keys[order], key_label=c.key_label[order], own=order.argsort()[c.own])
    assert loss(moved).item() == pytest.approx(loss(c).item(), rel=1e-12)
    rows = torch.randperm(len(c.label))
    values = {name: getattr(c, name)[rows] for name in ("anchors", "label", "logits", "own")}
    assert loss(changed(c, **values)).item() == pytest.approx(loss(c).item(), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_empty_slots_of_a_queue_change_nothing(loss):
    c = contrast()
    there = c.key_label != -1
    without = changed(c, keys=c.keys[there], key_label=c.key_label[there])
    assert loss(c).item() == pytest.approx(loss(without).item(), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("size", [1, 2])
def test_anchors_without_company_or_positives_have_finite_gradients(loss, size):
    """One view of images of different classes: no anchor has a positive or any other key."""
    embedding, logits = sphere(size).requires_grad_(), torch.randn(size, K, dtype=torch.float64)
    value = loss(ContrastiveBatch.of_all(embedding, torch.arange(size), logits))
    value.backward()
    assert value.isfinite()
    assert embedding.grad is None or embedding.grad.isfinite().all()
    if not isinstance(loss, PaCoLoss):
        assert value == 0


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_half_precision_is_left_alone(loss):
    """Similarities ignore autocast, and logits are converted to float32 before use."""
    c = contrast()
    c = changed(c, anchors=c.anchors.float(), keys=c.keys.float(), logits=c.logits.bfloat16())
    wide = {name: getattr(c, name).double() for name in ("anchors", "keys", "logits")}
    exact = loss(changed(c, **wide))
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(c)
    assert found.dtype == torch.float32
    # Cosines divided by a temperature of 0.1; half precision would err by 4e-3 / 0.1.
    rounding = D * torch.finfo(torch.float32).eps / 0.1
    assert found.item() == pytest.approx(exact.item(), abs=2 * rounding)
