"""Deferred re-weighting: class weights that a callback turns on."""

import pytest
import torch
from torch.nn import functional as F

from callbacks import Anneal
from experiments.recipes import read
from lightning_modules import losses

COUNTS = (6705, 1113, 1099, 514, 327, 142, 115)
K = len(COUNTS)
WEIGHTED = {"weights": losses.EffectiveNumber(beta=0.9999), "class_counts": COUNTS}
MAKE = {
    "ce": lambda **kwargs: losses.CrossEntropyLoss(**kwargs),
    "focal": lambda **kwargs: losses.FocalLoss(gamma=1.0, **kwargs),
    "spl": lambda **kwargs: losses.SelfPacedLoss(quantile=0.5, **kwargs),
    "logit_adjusted": lambda **kwargs: losses.LogitAdjustedLoss(tau=0.5, **kwargs),
}
each_loss = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def sample():
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(14) % K
    return torch.randn(14, K, generator=generator), label


@each_loss
@pytest.mark.parametrize("normalize", ["batch", "class"])
def test_the_ends_are_unweighted_and_weighted_exactly(make, normalize):
    logits, label = sample()
    criterion = make(**WEIGHTED, normalize=normalize)
    weighted = criterion(logits, label)
    criterion.reweighting = 0.0
    assert torch.equal(criterion(logits, label), make(class_counts=COUNTS)(logits, label))
    assert not torch.isclose(criterion(logits, label), weighted)
    criterion.reweighting = 1.0
    assert torch.equal(criterion(logits, label), weighted)


@pytest.mark.parametrize("normalize", ["batch", "class"])
def test_between_the_ends_by_a_loop(normalize):
    logits, label = sample()
    effective = [(1 - 0.9999) / (1 - 0.9999**n) for n in COUNTS]
    w = [1 + 0.3 * (K * e / sum(effective) - 1) for e in effective]
    cross_entropy = F.cross_entropy(logits, label, reduction="none").tolist()
    total = sum(w[c] * loss for c, loss in zip(label.tolist(), cross_entropy, strict=True))
    size = sum(w[c] for c in label.tolist()) if normalize == "batch" else len(label)
    criterion = losses.CrossEntropyLoss(**WEIGHTED, normalize=normalize)
    criterion.reweighting = 0.3
    assert criterion(logits, label).item() == pytest.approx(total / size, rel=1e-5)


@pytest.mark.parametrize("name", ["probe_drw", "probe_ldam_drw", "finetune_drw"])
def test_recipes_defer_the_published_weights(name):
    settings = read(name)
    weights = settings["model"]["init_args"]["criterion"]["init_args"]["weights"]
    assert weights["init_args"] == {"beta": 0.9999}
    (callback,) = settings["trainer"]["callbacks+"]
    assert callback["init_args"]["attribute"] == "criterion.reweighting"
    anneal = Anneal(**callback["init_args"])
    for epochs in (200, 30):
        values = [anneal.value(epoch / epochs) for epoch in range(epochs)]
        assert values == [0.0] * (epochs * 4 // 5) + [1.0] * (epochs // 5)
