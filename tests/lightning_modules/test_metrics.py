import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torchmetrics.functional.classification import binary_calibration_error

from datamodules.classes import HAM10000_CLASSES
from lightning_modules.metrics import DiagnosticMetrics

NAMES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
pytestmark = pytest.mark.filterwarnings("ignore:.*sklearn.*", "ignore::UserWarning:sklearn")


def predictions(seed: int, n: int = 200, never: int | None = None, absent: int | None = None):
    """Random logits and labels; ``never`` is never predicted, ``absent`` never the label."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 7, generator=generator)
    if never is not None:
        logits[:, never] = -20
    labels = torch.randint(0, 7, (n,), generator=generator)
    if absent is not None:
        labels[labels == absent] = (absent + 1) % 7
    return logits, labels


def computed(logits, labels, batch: int = 64):
    metric = DiagnosticMetrics(NAMES, HAM10000_CLASSES.shots)
    index = torch.arange(len(labels))
    for part in index.split(batch):
        metric.update(logits[part], labels[part], index[part])
    return metric.compute()


@pytest.mark.parametrize("options", [{}, {"never": 3}, {"absent": 5}, {"never": 2, "absent": 5}])
@pytest.mark.parametrize("seed", range(3))
def test_definitions_are_those_of_scikit_learn(seed, options):
    logits, labels = predictions(seed, **options)
    ours, predicted = computed(logits, labels), logits.argmax(1)
    macro = {"average": "macro", "zero_division": 0}
    each = {"average": None, "zero_division": 0, "labels": range(7)}
    expected = {
        "accuracy": sklearn.accuracy_score(labels, predicted),
        "balanced_accuracy": sklearn.recall_score(
            labels, predicted, average="macro", labels=sorted(set(labels.tolist()))
        ),
        "macro_precision": sklearn.precision_score(labels, predicted, **macro),
        "macro_recall": sklearn.recall_score(labels, predicted, **macro),
        "macro_f1": sklearn.f1_score(labels, predicted, **macro),
    }
    for metric, function in {
        "precision": sklearn.precision_score,
        "recall": sklearn.recall_score,
        "f1": sklearn.f1_score,
    }.items():
        values = function(labels, predicted, **each)
        expected |= {f"{metric}_{name}": v for name, v in zip(NAMES, values, strict=True)}
    assert {k: ours[k].item() for k in expected} == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(
        ours["confusion"], sklearn.confusion_matrix(labels, predicted, labels=range(7))
    )
    assert [int(ours[f"support_{n}"]) for n in NAMES] == torch.bincount(
        labels, minlength=7
    ).tolist()


def test_balanced_accuracy_is_scikit_learns_where_all_classes_occur():
    logits, labels = predictions(0)
    expected = sklearn.balanced_accuracy_score(labels, logits.argmax(1))
    assert computed(logits, labels)["balanced_accuracy"].item() == pytest.approx(expected)


@pytest.mark.parametrize("absent", [None, 5])
def test_macro_auroc_is_the_mean_over_classes_that_occur(absent):
    logits, labels = predictions(1, absent=absent)
    probability = logits.softmax(1)
    each = [sklearn.roc_auc_score(labels == c, probability[:, c]) for c in range(7) if c != absent]
    found = computed(logits, labels)["macro_auroc"].item()
    # A sum over 200 thresholds in float32; one swapped pair of images would differ by 3e-5.
    assert found == pytest.approx(np.mean(each), abs=200 * torch.finfo(torch.float32).eps / 2)


def test_calibration_error_by_its_definition():
    logits, labels = predictions(2)
    confidence, predicted = logits.softmax(1).max(1)
    correct, bins, ece = (predicted == labels).double(), torch.ceil(confidence * 15), 0.0
    for b in bins.unique():
        chosen = bins == b
        gap = correct[chosen].mean() - confidence[chosen].double().mean()
        ece += chosen.double().mean() * gap.abs()
    assert computed(logits, labels)["ece"].item() == pytest.approx(ece.item(), abs=1e-6)


def by_class_and_bin(probability, labels):
    """The calibration error of each class in plain loops, with bins closed at the left."""
    n, k = probability.shape
    total = 0.0
    for c in range(k):
        for b in range(16):
            rows = [i for i in range(n) if math.floor(probability[i, c].item() * 15) == b]
            predicted = sum(probability[i, c].item() for i in rows)
            observed = sum(labels[i].item() == c for i in rows)
            total += abs(observed - predicted) / n / k
    return total


def risk_by_confidence(probability, labels):
    """Mean over the images of the errors among those of at least their confidence, in loops."""
    confidence, wrong = probability.amax(1).tolist(), (probability.argmax(1) != labels).tolist()
    risks = []
    for threshold in confidence:
        accepted = [w for p, w in zip(confidence, wrong, strict=True) if p >= threshold]
        risks.append(sum(accepted) / len(accepted))
    return sum(risks) / len(risks)


@pytest.mark.parametrize("options", [{}, {"never": 3}, {"absent": 5}])
def test_measures_of_the_probabilities_by_their_definitions(options):
    logits, labels = predictions(4, **options)
    p = (2 * logits).softmax(1)
    found = computed(2 * logits, labels)
    truth = torch.eye(7)[labels]
    expected = {
        "brier": sum(((p[i] - truth[i]) ** 2).sum().item() for i in range(200)) / 200,
        "nll": sum(-math.log(p[i, c].item()) for i, c in enumerate(labels.tolist())) / 200,
        "classwise_ece": by_class_and_bin(p, labels),
        "aurc": risk_by_confidence(p, labels),
    }
    assert {name: found[name].item() for name in expected} == pytest.approx(expected, abs=1e-5)


def test_measures_of_the_probabilities_are_those_of_libraries():
    logits, labels = predictions(5)
    p, found = logits.softmax(1), computed(logits, labels)
    columns = p.T.contiguous()
    binary = [binary_calibration_error(columns[c], labels == c, n_bins=15) for c in range(7)]
    brier = sklearn.brier_score_loss(labels, p.double(), labels=range(7), scale_by_half=False)
    assert found["classwise_ece"].item() == pytest.approx(torch.stack(binary).mean().item(), 1e-5)
    assert found["brier"].item() == pytest.approx(brier, abs=1e-5)
    assert found["nll"].item() == pytest.approx(sklearn.log_loss(labels, p.double()), abs=1e-5)


def test_the_brier_score_of_two_classes_is_twice_that_of_the_positive_one():
    metric = DiagnosticMetrics(("nv", "mel"))
    logits, label = torch.randn(20, 2), torch.arange(20) % 2
    metric.update(logits, label, torch.arange(20))
    expected = 2 * sklearn.brier_score_loss(label, logits.softmax(1)[:, 1])
    assert metric.compute()["brier"].item() == pytest.approx(expected, abs=1e-6)


def test_measures_of_the_best_and_the_worst_probabilities():
    label, index = torch.arange(7), torch.arange(7)
    for sure_of, brier, others in ((label, 0, 0), ((label + 1) % 7, 2, 1)):
        metric = DiagnosticMetrics(NAMES)
        metric.update(200 * torch.eye(7)[sure_of], label, index)
        values = metric.compute()
        assert values["brier"].item() == pytest.approx(brier)
        assert values["aurc"].item() == values["ece"].item() == others
        assert values["classwise_ece"].item() == pytest.approx(2 * others / 7)
        assert 0 <= values["nll"].item() < 70


def test_images_of_equal_confidence_are_accepted_together():
    """Three images, the last two equally confident, the first right: risks 0/1, 1/3 and 1/3."""
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    for labels in ([0, 0, 1], [0, 1, 0]):
        metric = DiagnosticMetrics(("nv", "mel"))
        metric.update(p.log(), torch.tensor(labels), torch.arange(3))
        assert metric.compute()["aurc"].item() == pytest.approx((0 + 1 / 3 + 1 / 3) / 3)


def test_shots_of_ham10000():
    """The row 'HViT SPMix' of SPMix's table: 33 of 40, 108 of 120 and 100 of 120 correct."""
    hits = {"nv": 33, "mel": 36, "bkl": 36, "bcc": 36, "akiec": 33, "vasc": 33, "df": 34}
    labels = torch.arange(7).repeat_interleave(40)
    predicted = labels.clone()
    for c, name in enumerate(NAMES):
        predicted[c * 40 + hits[name] : (c + 1) * 40] = (c + 1) % 7
    values = computed(torch.nn.functional.one_hot(predicted, 7).float(), labels)
    assert values["many_accuracy"].item() == pytest.approx(33 / 40)
    assert values["medium_accuracy"].item() == pytest.approx(108 / 120)
    assert values["few_accuracy"].item() == pytest.approx(100 / 120)
    assert values["accuracy"].item() == values["balanced_accuracy"].item()
    assert round(100 * values["accuracy"].item(), 2) == 86.07


def test_batches_and_their_order_do_not_matter():
    logits, labels = predictions(3)
    one, order = computed(logits, labels, batch=200), torch.randperm(200)
    metric = DiagnosticMetrics(NAMES, HAM10000_CLASSES.shots)
    metric.update(logits[order], labels[order], order)
    for name, value in metric.compute().items():
        assert torch.allclose(value.double(), one[name].double(), atol=1e-6), name


def test_without_shots_there_are_no_metrics_of_groups():
    metric = DiagnosticMetrics(("nv", "mel"))
    metric.update(torch.randn(20, 2), torch.arange(20) % 2, torch.arange(20))
    assert not {k for k in metric.compute() if k.startswith(("many", "medium", "few"))}
