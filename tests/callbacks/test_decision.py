import itertools

import pytest
import torch

from callbacks.errors import RunError
from callbacks.recording.decision import (
    ArgMax,
    Decision,
    LogitAdjustment,
    MinimumCost,
    Sensitivity,
    Validation,
    fit_temperature,
    outcome,
)

CLASSES = ("mel", "nv", "bcc")


@pytest.fixture
def validation():
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (300,), generator=generator)
    logits = torch.randn(300, 3, generator=generator) + torch.nn.functional.one_hot(label, 3)
    return logits.softmax(1), label


def chosen(rule, probability, label, counts=(10, 80, 10)):
    return Decision(CLASSES, **rule.choose(Validation(probability, label, CLASSES, counts)))


def test_no_rule_is_the_likeliest_class(validation):
    probability, label = validation
    assert torch.equal(chosen(ArgMax(), probability, label)(probability), probability.argmax(1))
    zero_one = (1 - torch.eye(3)).tolist()
    decided = chosen(MinimumCost(zero_one), probability, label)(probability)
    assert torch.equal(decided, probability.argmax(1))


def test_costs_of_nine_to_one_are_a_threshold_of_a_tenth():
    """Deciding malignant costs 1 if wrong, missing it costs 9: t* = 1 / (1 + 9)."""
    p = torch.linspace(0.005, 0.995, 100)  # a tenth itself is a tie
    probability = torch.stack([1 - p, p], dim=1)
    decision = Decision(("nv", "mel"), costs=((0.0, 1.0), (9.0, 0.0)))
    assert torch.equal(decision(probability) == 1, p > 0.1)


def test_costs_against_a_loop(validation):
    probability, label = validation
    costs = [[0.0, 5.0, 1.0], [1.0, 0.0, 2.0], [3.0, 1.0, 0.0]]
    decided = chosen(MinimumCost(costs), probability, label)(probability)
    for p, k in zip(probability[:50].tolist(), decided[:50].tolist(), strict=True):
        expected = [sum(p[j] * costs[j][d] for j in range(3)) for d in range(3)]
        assert k == expected.index(min(expected))


@pytest.mark.parametrize("at_least", [0.5, 0.8, 0.95, 1.0])
def test_sensitivity_is_reached_with_the_smallest_offset(validation, at_least):
    probability, label = validation
    decision = chosen(Sensitivity("mel", at_least), probability, label)
    found = outcome(decision(probability), label, CLASSES)["recall_mel"]
    melanomas = (label == 0).sum().item()
    assert at_least <= found + 1e-9
    assert found < at_least + 1 / melanomas  # one image less would be too few


def test_recall_does_not_fall_with_the_offset(validation):
    probability, label = validation
    recalls = [
        outcome(Decision(CLASSES, offsets=(b, 0.0, 0.0))(probability), label, CLASSES)["recall_mel"]
        for b in (-2.0, -0.5, 0.0, 0.5, 2.0)
    ]
    assert all(a <= b for a, b in itertools.pairwise(recalls))


def test_temperature_is_of_the_training_frequencies():
    """A network calibrated to the training frequencies gets T = 1 on a balanced split."""
    p = torch.rand(40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 9
    label = (torch.rand(p.shape, generator=torch.Generator().manual_seed(1)) > p).long()
    probability = torch.stack([p, 1 - p], dim=1)
    rare = (label == 0).nonzero().flatten()
    balanced = torch.cat([rare, (label == 1).nonzero().flatten()[: len(rare)]])
    there = torch.bincount(label).tolist()
    of_training = fit_temperature(probability[balanced], label[balanced], there)
    assert of_training == pytest.approx(1, abs=0.05)
    assert fit_temperature(probability[balanced], label[balanced]) > 1.2


def test_logit_adjustment(validation):
    probability, label = validation
    assert torch.equal(
        chosen(LogitAdjustment(), probability, label, (5, 5, 5))(probability), probability.argmax(1)
    )
    prior = torch.tensor([0.1, 0.8, 0.1])
    decided = chosen(LogitAdjustment(), probability, label)(probability)
    assert torch.equal(decided, (probability / prior).argmax(1))


def test_temperature_is_recovered(validation):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(20_000, 4, generator=generator) * 2
    label = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    assert fit_temperature(logits.softmax(1), label) == pytest.approx(1, abs=0.05)
    assert fit_temperature((3 * logits).softmax(1), label) == pytest.approx(3, abs=0.1)


def test_temperature_minimises_the_cross_entropy(validation):
    probability, label = validation
    best = fit_temperature(probability, label)

    def loss(t):
        calibrated = Decision(CLASSES, temperature=t).calibrated(probability)
        return torch.nn.functional.nll_loss(calibrated.log(), label)

    assert loss(best) <= min(loss(0.98 * best), loss(1.02 * best))


def test_temperature_changes_no_ranking(validation):
    probability, _ = validation
    decision = Decision(CLASSES, temperature=2.5)
    assert torch.equal(decision.calibrated(probability).argsort(1), probability.argsort(1))


def test_a_decision_is_kept_with_the_run(tmp_path):
    assert Decision.load(tmp_path) is None
    decision = Decision(CLASSES, 1.5, (0.0, -1.0, 2.0), ((0.0, 1.0), (9.0, 0.0)))
    decision.save(tmp_path)
    assert Decision.load(tmp_path) == decision


def test_outcome_is_recall_and_precision():
    decided, label = torch.tensor([0, 0, 1, 1, 0]), torch.tensor([0, 1, 1, 1, 1])
    values = outcome(decided, label, ("nv", "mel", "df"))
    assert values["recall_nv"] == 1
    assert values["recall_mel"] == values["precision_mel"] / 2 == 0.5
    assert values["precision_nv"] == pytest.approx(1 / 3)
    assert values["precision_df"] == 0
    assert values["balanced_accuracy"] == 0.75


def test_impossible_rules_are_said(validation):
    probability, label = validation
    with pytest.raises(RunError, match="no class 'scc'"):
        chosen(Sensitivity("scc"), probability, label)
    with pytest.raises(RunError, match="3 rows of 3"):
        chosen(MinimumCost([[0.0, 1.0], [1.0, 0.0]]), probability, label)
