import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats

from callbacks.errors import RunError
from callbacks.recording.sets import (
    ClassConditional,
    Marginal,
    PredictionSets,
    PrevalenceAdjusted,
    quantile,
)

CLASSES = ("mel", "nv", "bcc")
COUNTS = (10, 80, 10)
KINDS = [Marginal, ClassConditional, PrevalenceAdjusted]
COVERAGES = [Fraction(1, 2), Fraction(2, 3), Fraction(9, 10), Fraction(19, 20)]


def drawn(lesions=60, images=3, seed=0):
    """Probabilities, labels and lesions; a lesion has one to ``images`` similar images."""
    draw = torch.Generator().manual_seed(seed)
    lesion = torch.arange(lesions).repeat_interleave(
        torch.randint(1, images + 1, (lesions,), generator=draw)
    )
    label = torch.randint(0, 3, (lesions,), generator=draw)[lesion]
    logits = torch.randn(lesions, 3, generator=draw)[lesion]
    logits = logits + 0.5 * torch.randn(len(lesion), 3, generator=draw)
    return (logits + 2 * torch.nn.functional.one_hot(label, 3)).softmax(1), label, lesion


def chosen(method, probability, label, lesion, counts=COUNTS):
    minimum = method.minimum(probability, label, lesion, counts).tolist()
    return PredictionSets(CLASSES, type(method).__name__, method.coverage, tuple(minimum))


def quantile_by_loop(scores, lesions, coverage):
    """The smallest score from which on the mass is reached, in exact fractions."""
    images = {lesion: lesions.count(lesion) for lesion in lesions}
    each = Fraction(1, len(images) + 1)  # the last part is at infinity
    for candidate in sorted(scores):
        below = [each / images[m] for s, m in zip(scores, lesions, strict=True) if s <= candidate]
        if sum(below) >= coverage:
            return candidate
    return math.inf


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize("images", [1, 2, 3, 7])
def test_quantile_against_a_loop(coverage, images):
    for lesions in (1, 2, 8, 9, 18, 19, 20, 40):
        probability, label, lesion = drawn(lesions, images, seed=lesions)
        score = 1 - probability.double().gather(1, label[:, None]).squeeze(1)
        expected = quantile_by_loop(score.tolist(), lesion.tolist(), coverage)
        assert quantile(score, lesion, float(coverage)) == expected


@pytest.mark.parametrize("coverage", COVERAGES)
def test_quantile_of_one_image_per_lesion_is_that_of_split_conformal_prediction(coverage):
    for n in range(1, 120):
        score = torch.randn(n, generator=torch.Generator().manual_seed(n)).double()
        place = math.ceil((n + 1) * coverage)
        expected = sorted(score.tolist())[place - 1] if place <= n else math.inf
        assert quantile(score, torch.arange(n), float(coverage)) == expected


def test_quantile_of_equal_scores():
    assert quantile(torch.full((12,), 0.3), torch.arange(12), 0.9) == pytest.approx(0.3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_sets_against_a_loop_with_the_scores_of_the_paper(kind, coverage):
    probability, label, lesion = drawn()
    new, _, _ = drawn(seed=1)
    prior = [count / sum(COUNTS) for count in COUNTS]

    def score(p, k):
        return -p[k] / prior[k] if kind is PrevalenceAdjusted else 1 - p[k]

    rows, true, lesions = probability.double().tolist(), label.tolist(), lesion.tolist()
    quantiles = []
    for k in range(3):
        used = [i for i in range(len(true)) if kind is not ClassConditional or true[i] == k]
        scores = [score(rows[i], true[i]) for i in used]
        quantiles.append(quantile_by_loop(scores, [lesions[i] for i in used], Fraction(coverage)))
    expected = [[score(p, k) <= quantiles[k] for k in range(3)] for p in new.double().tolist()]
    sets = chosen(kind(coverage), probability, label, lesion)
    assert sets(new).tolist() == expected
    assert sets.names(new)[0] == " ".join(
        name for name, member in zip(CLASSES, expected[0], strict=True) if member
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_images_at_the_threshold_are_in_their_sets(kind):
    for seed in range(20):
        probability, label, lesion = drawn(images=1, seed=seed)
        sets = chosen(kind(0.8), probability, label, lesion)
        covered = sets(probability).gather(1, label[:, None]).squeeze(1)
        groups = [label == c for c in range(3)] if kind is ClassConditional else [label >= 0]
        for group in groups:
            n = int(group.sum())
            assert covered[group].sum() == min(n, math.ceil((n + 1) * Fraction(4, 5)))


@pytest.mark.parametrize(("n", "coverage"), [(19, 0.9), (39, 0.8), (9, 0.9)])
def test_coverage_is_of_its_beta_distribution(n, coverage):
    """With uniform scores, the coverage of new lesions is the quantile: Beta(k, n + 1 - k)."""
    draw = torch.Generator().manual_seed(0)
    label = torch.zeros(n, dtype=torch.long)
    found = []
    for _ in range(2000):
        p = torch.rand(n, generator=draw, dtype=torch.float64)
        probability = torch.stack([p, 1 - p], dim=1)
        minimum = Marginal(coverage).minimum(probability, label, torch.arange(n), (1, 1))
        found.append(1 - minimum[0].item())
    k = math.ceil((n + 1) * Fraction(str(coverage)))
    assert stats.kstest(found, stats.beta(k, n + 1 - k).cdf).pvalue > 1e-3
    assert abs(np.mean(found) - k / (n + 1)) < 0.005
    wrong = [j for j in (k - 1, k + 1) if 0 < j <= n]  # what an off-by-one would give
    assert all(stats.kstest(found, stats.beta(j, n + 1 - j).cdf).pvalue < 1e-9 for j in wrong)


@pytest.mark.parametrize("counted", ["lesions", "images"])
def test_coverage_holds_for_lesions_but_not_if_images_are_counted(counted):
    """One lesion in four is hard and has one image; easy lesions have twenty."""
    draw = np.random.default_rng(0)
    coverages = []
    for _ in range(300):
        hard = draw.random(40) < 0.25
        images = np.where(hard, 1, 20)
        lesion = torch.from_numpy(np.repeat(np.arange(40), images))
        p = np.repeat(np.where(hard, 0.3, 0.9) + 0.1 * draw.random(40), images)
        probability = torch.tensor(np.stack([p, 1 - p], axis=1))
        label = torch.zeros(len(lesion), dtype=torch.long)
        group = lesion if counted == "lesions" else torch.arange(len(lesion))
        t = Marginal(0.9).minimum(probability, label, group, (1, 1))[0].item()
        easy_covered, hard_covered = np.clip([(1.0 - t) * 10, (0.4 - t) * 10], 0, 1)
        coverages.append(0.75 * easy_covered + 0.25 * hard_covered)
    found = np.mean(coverages)
    if counted == "lesions":
        assert found + 0.01 >= 0.9
        assert found < 0.93  # at most 1 / 41 above
    else:
        assert found < 0.78


def test_every_class_is_covered_by_its_own_threshold():
    """Rare classes with low probabilities are lost by one threshold, and kept by their own."""
    draw = np.random.default_rng(0)
    label = np.repeat([0, 1], [950, 50])
    coverage = {}
    for kind in (Marginal, ClassConditional):
        rates = []
        for _ in range(60):
            p = np.where(label == 0, 0.6, 0.1) + 0.4 * draw.random(1000)
            true = torch.tensor(np.stack([p, 1 - p], axis=1))
            true[label == 1] = true[label == 1].flip(1)
            cases = torch.arange(1000) % 2 == 0
            labels = torch.from_numpy(label)
            minimum = (
                kind(0.9).minimum(true[cases], labels[cases], torch.arange(500), (950, 50)).tolist()
            )
            sets = PredictionSets(("nv", "df"), "", 0.9, tuple(minimum))
            found = sets.measure(true[~cases], labels[~cases], np.arange(500))["per_class"]
            rates.append(found["df"]["coverage"])
        coverage[kind] = np.mean(rates)
    assert coverage[Marginal] < 0.1
    assert coverage[ClassConditional] > 0.89


@pytest.mark.parametrize("kind", KINDS)
def test_with_too_few_lesions_every_class_is_in_every_set(kind):
    probability, label, lesion = drawn(lesions=1)
    sets = chosen(kind(0.9), probability, label, lesion)
    assert sets.minimum == (0, 0, 0)
    assert sets.names(torch.tensor([[1.0, 0.0, 0.0]])) == ["mel nv bcc"]


def test_a_class_without_validation_images_is_in_every_set():
    probability, label, lesion = drawn(lesions=100)
    some = label != 2
    sets = chosen(ClassConditional(0.9), probability[some], label[some], lesion[some])
    assert sets.minimum[2] == 0
    assert min(sets.minimum[:2]) > 0


def test_a_class_without_training_images_is_in_every_prevalence_adjusted_set():
    probability, label, lesion = drawn(lesions=100)
    minimum = PrevalenceAdjusted(0.5).minimum(probability, label, lesion, (10, 90, 0))
    assert minimum[2] == 0
    assert (minimum[:2] > 0).all()
    only = PrevalenceAdjusted(0.5).minimum(probability, label, lesion, (1, 0, 0))
    assert only.isfinite().all()


def test_prevalence_adjusted_sets_of_equal_classes_are_marginal():
    probability, label, lesion = drawn()
    found = [
        kind(0.8).minimum(probability, label, lesion, (7, 7, 7))
        for kind in (Marginal, PrevalenceAdjusted)
    ]
    torch.testing.assert_close(*found)


def test_sets_may_be_empty():
    sets = PredictionSets(CLASSES, "Marginal", 0.5, (0.8, 0.8, 0.8))
    assert sets.names(torch.tensor([[0.4, 0.3, 0.3], [0.1, 0.9, 0.0]])) == ["", "nv"]


def test_measures_against_a_loop():
    probability, label, lesion = drawn()
    sets = chosen(ClassConditional(0.7), *drawn(seed=2))
    found = sets.measure(probability, label, lesion.numpy())
    coverages, sizes, single, empty = {}, {}, {}, {}
    for number in lesion.unique().tolist():
        rows = (lesion == number).nonzero().flatten().tolist()
        members = [[p >= t for p, t in zip(probability[i].tolist(), sets.minimum, strict=True)]
                   for i in rows]  # fmt: skip
        key = number, label[rows[0]].item()
        coverages[key] = np.mean([m[key[1]] for m in members])
        sizes[key] = np.mean([sum(m) for m in members])
        single[key] = np.mean([sum(m) == 1 for m in members])
        empty[key] = np.mean([sum(m) == 0 for m in members])
    assert found["coverage"] == pytest.approx(np.mean(list(coverages.values())))
    assert found["size"] == pytest.approx(np.mean(list(sizes.values())))
    assert found["singletons"] == pytest.approx(np.mean(list(single.values())))
    assert found["empty"] == pytest.approx(np.mean(list(empty.values())))
    classes = []
    for c, name in enumerate(CLASSES):
        of_class = [value for (_, k), value in coverages.items() if k == c]
        classes.append(np.mean(of_class))
        assert found["per_class"][name]["coverage"] == pytest.approx(classes[-1])
        size = np.mean([value for (_, k), value in sizes.items() if k == c])
        assert found["per_class"][name]["size"] == pytest.approx(size)
    assert found["macro_coverage"] == pytest.approx(np.mean(classes))
    low, high = found["interval"]
    assert 0 <= low < found["coverage"] < high <= 1
    assert (found["kind"], found["target"]) == ("ClassConditional", 0.7)


def test_a_class_without_images_has_no_coverage():
    sets = PredictionSets(CLASSES, "Marginal", 0.9, (0.1, 0.1, 0.1))
    found = sets.measure(torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([1]), np.array([0]))
    assert math.isnan(found["per_class"]["mel"]["coverage"])
    assert found["coverage"] == found["macro_coverage"] == 1
    assert found["interval"][0] == pytest.approx(0.025)  # of one lesion


def test_sets_are_kept_with_the_run(tmp_path):
    assert PredictionSets.load(tmp_path, CLASSES, 5) is None
    sets = PredictionSets(CLASSES, "Marginal", 0.9, (0.25, 1 / 3, 0.0), step=5)
    sets.save(tmp_path)
    assert PredictionSets.load(tmp_path, CLASSES, 5) == sets
    assert PredictionSets.load(tmp_path, CLASSES, None) == sets
    with pytest.raises(RunError, match="is for other classes: choose them again with `make dec"):
        PredictionSets.load(tmp_path, ("nv", "mel", "bcc"), 5)
    with pytest.raises(RunError, match="for the checkpoint of step 5, not 9: choose them again"):
        PredictionSets.load(tmp_path, CLASSES, 9)


WHOLE = {"kind": "Marginal", "coverage": 0.9, "minimum": {"mel": 0.1, "nv": 0.1}, "step": 3}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps(WHOLE)[:-9],
        *(json.dumps({k: v for k, v in WHOLE.items() if k != key}) for key in WHOLE),
        json.dumps(WHOLE | {"minimum": [0.1, 0.1]}),
        json.dumps(WHOLE | {"minimum": {"mel": None, "nv": 0.1}}),
        json.dumps(WHOLE | {"minimum": {"mel": -0.5, "nv": 0.1}}),
        json.dumps(WHOLE | {"minimum": {"mel": math.nan, "nv": 0.1}}),
        json.dumps(WHOLE | {"coverage": "most"}),
    ],
)
def test_damaged_sets_are_refused(tmp_path, text):
    (tmp_path / "sets.json").write_text(text)
    with pytest.raises(RunError, match=r"sets\.json holds no sets .*: choose them again"):
        PredictionSets.load(tmp_path, ("mel", "nv"), 3)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0, 90.0, math.nan])
def test_a_coverage_is_between_0_and_1(coverage):
    with pytest.raises(RunError, match="above 0 and below 1"):
        Marginal(coverage)
