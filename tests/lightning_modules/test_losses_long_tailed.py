"""LDAM, VS, LADE, seesaw, Gaussian clouded and sigmoid focal losses against their papers."""

import math

import pytest
import torch

from experiments.recipes import read
from lightning_modules import losses
from lightning_modules.errors import ModelError
from lightning_modules.networks import CosineHead

COUNTS = (1113, 6705, 514, 327, 1099, 115, 142)
PRIOR = [n / sum(COUNTS) for n in COUNTS]
K = len(COUNTS)


def sample(seed=0):
    """Logits (12, K) and labels (12,), without any image of the last class."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.tensor([1, 0, 4, 1, 0, 4, 5, 1, 3, 2, 5, 0])
    return 2 * torch.randn(12, K, generator=generator, dtype=torch.float64), label


def mean(formula, logits, label):
    """The mean over images of formula(z, y), in plain Python."""
    pairs = list(zip(logits.tolist(), label.tolist(), strict=True))
    return sum(formula(z, y) for z, y in pairs) / len(pairs)


def softmax(z, factors=(1,) * K):
    terms = [f * math.exp(v) for f, v in zip(factors, z, strict=True)]
    return [t / sum(terms) for t in terms]


def test_ldam_by_a_loop():
    logits, label = sample()
    constant = 0.4 * min(COUNTS) ** 0.25

    def formula(z, y):
        margin = 10 * constant / COUNTS[y] ** 0.25
        true = math.exp(z[y] - margin)
        return -math.log(true / (true + sum(math.exp(v) for k, v in enumerate(z) if k != y)))

    criterion = losses.LDAMLoss(COUNTS, max_margin=0.4, scale=10.0)
    assert criterion(logits, label).item() == pytest.approx(mean(formula, logits, label))


def test_vs_by_a_loop():
    logits, label = sample()

    def formula(z, y):
        scaled = [(n / max(COUNTS)) ** 0.2 * v for n, v in zip(COUNTS, z, strict=True)]
        return -math.log(softmax(scaled, [p**1.5 for p in PRIOR])[y])

    criterion = losses.VSLoss(COUNTS, gamma=0.2, tau=1.5)
    assert criterion(logits, label).item() == pytest.approx(mean(formula, logits, label))


def test_vs_has_its_special_cases():
    logits, label = sample()
    adjusted = losses.LogitAdjustedLoss(COUNTS, tau=1.5)
    assert torch.equal(
        losses.VSLoss(COUNTS, gamma=0.0, tau=1.5)(logits, label), adjusted(logits, label)
    )


def test_lade_by_a_loop():
    logits, label = sample()
    z, y = logits.tolist(), label.tolist()
    lader = 0.0
    for c in range(K - 1):  # the last class has no image
        own = [z[i][c] for i in range(12) if y[i] == c]
        importance = [1 / K / PRIOR[y[i]] for i in range(12)]
        expected = sum(importance[i] * math.exp(z[i][c]) for i in range(12)) / 12
        bound = sum(own) / len(own) - math.log(expected) - 0.3 * math.log(expected) ** 2
        lader -= PRIOR[c] * bound
    balanced_softmax = mean(lambda z, y: -math.log(softmax(z, PRIOR)[y]), logits, label)
    criterion = losses.LADELoss(COUNTS, alpha=0.2, lambda_=0.3)
    found = criterion(logits, label).item()
    assert found == pytest.approx(balanced_softmax + 0.2 * lader)


def test_the_optimum_of_lader_is_the_log_ratio():
    """Two points, (1, 0) in 3/4 of class 0's images and 1/4 of class 1's: z_c = log p(x|c)/p(x)."""
    x = torch.tensor([0, 0, 0, 1] * 10 + [0, 1, 1, 1])
    label = torch.tensor([0] * 40 + [1] * 4)
    criterion = losses.LADELoss((40, 4))
    logits = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)  # of each point
    optimizer = torch.optim.LBFGS([logits], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = criterion.regularizer(logits[x], label)
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = torch.tensor([[0.75, 0.25], [0.25, 0.75]], dtype=torch.float64).div(0.5).log()
    assert torch.allclose(logits.detach(), expected, atol=1e-4)


def seesaw(seen, z, y):
    """The factors S_y of an image."""
    sigma = softmax(z)
    mitigation = [min(1, (max(n, 1) / max(seen[y], 1)) ** 0.7) for n in seen]
    compensation = [max(1, (s / max(sigma[y], 0.01)) ** 1.5) for s in sigma]
    return [1 if k == y else mitigation[k] * compensation[k] for k in range(K)]


def test_seesaw_by_a_loop_over_two_batches():
    criterion, seen = losses.SeesawLoss(COUNTS, p=0.7, q=1.5), [0] * K
    for seed in range(2):
        logits, label = sample(seed)
        for y in label.tolist():
            seen[y] += 1
        z = logits.clone().requires_grad_()
        loss = criterion(z, label)
        loss.backward()
        factors = [seesaw(seen, z, y) for z, y in zip(logits.tolist(), label.tolist(), strict=True)]
        assert max(max(f) for f in factors) > 2 > 0.9 > min(min(f) for f in factors)
        probabilities = [softmax(z, f) for z, f in zip(logits.tolist(), factors, strict=True)]
        expected = -sum(math.log(p[y]) for p, y in zip(probabilities, label.tolist(), strict=True))
        assert loss.item() == pytest.approx(expected / 12)
        # With constant factors: p - y, as for cross-entropy.
        gradient = torch.tensor(probabilities) - torch.nn.functional.one_hot(label, K)
        assert torch.allclose(z.grad, gradient.to(z.dtype) / 12, atol=1e-6)


def test_seesaw_counts_in_training_and_resumes():
    first, (logits, label) = losses.SeesawLoss(COUNTS), sample()
    first(logits, label)
    first.eval()(logits, label)
    assert first.seen.tolist() == torch.bincount(label, minlength=K).tolist()
    second = losses.SeesawLoss(COUNTS)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(logits, label), first.train()(logits, label))


def test_gcl_by_a_loop():
    logits, label = sample()
    eps = torch.rand(12, K).double()

    class Drawn(losses.GCLLoss):
        def noise(self, logits):
            return eps

    total = 0.0
    for i, y in enumerate(label.tolist()):
        delta = [math.log(max(COUNTS)) - math.log(n) for n in COUNTS]
        cloud = [10 * 0.4 * d / max(delta) * eps[i, k].item() for k, d in enumerate(delta)]
        total -= math.log(
            softmax([v - c for v, c in zip(logits[i].tolist(), cloud, strict=True)])[y]
        )
    criterion = Drawn(COUNTS, amplitude=0.4, scale=10.0)
    assert criterion(logits, label).item() == pytest.approx(total / 12)


def test_gcl_draws_a_clamped_half_gaussian():
    torch.manual_seed(0)
    noise = losses.GCLLoss(COUNTS).noise(torch.zeros(5000, K))
    assert 0 <= noise.min() <= noise.max() == 1
    # Mean of |N(0, 1/9)| is sqrt(2 / pi) / 3 = 0.266; clamping takes less than 0.001.
    assert noise.mean().item() == pytest.approx(0.266, abs=0.006)


def test_sigmoid_focal_by_a_loop_with_published_weights():
    logits, label = sample()
    inverse = [(1 - 0.999) / (1 - 0.999**n) for n in COUNTS]
    w = [K * v / sum(inverse) for v in inverse]

    def formula(z, y):
        p = [1 / (1 + math.exp(-v)) for v in z]
        others = sum(-(p[k] ** 0.5) * math.log(1 - p[k]) for k in range(K) if k != y)
        return w[y] * (-((1 - p[y]) ** 0.5) * math.log(p[y]) + others)

    criterion = losses.SigmoidFocalLoss(
        gamma=0.5, weights=losses.EffectiveNumber(0.999), normalize="class", class_counts=COUNTS
    )
    expected = mean(formula, logits, label)
    assert criterion(logits, label).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["probe_ldam_drw", "probe_gcl"])
def test_losses_of_cosines_have_the_scale_of_their_head(name):
    model = read(name)["model"]["init_args"]
    head = model["network"]["init_args"]["head"]
    assert head["class_path"] == "lightning_modules.networks.CosineHead"
    assert head["init_args"]["scale"] == model["criterion"]["init_args"]["scale"] == 30


def test_the_scale_is_applied_once():
    """LDAM on a cosine head is the paper's loss of s (cos - m), whose s multiplies the cosines."""
    head = CosineHead(5, K, scale=30.0)
    vectors, label = torch.randn(12, 5), sample()[1]
    cosines = torch.nn.functional.cosine_similarity(vectors[:, None], head.weight[None], dim=2)
    margins = 0.5 * (min(COUNTS) / torch.tensor(COUNTS)) ** 0.25
    cosines[range(12), label] -= margins[label]
    expected = torch.nn.functional.cross_entropy(30 * cosines, label)
    assert torch.allclose(losses.LDAMLoss(COUNTS)(head(vectors), label), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.LDAMLoss(COUNTS, max_margin=-1), "set a margin of at least 0"),
        (lambda: losses.GCLLoss(COUNTS, scale=0), "set an amplitude of at least 0"),
        (lambda: losses.VSLoss(COUNTS, gamma=-1), "gamma=-1 is negative"),
        (lambda: losses.LADELoss([]), "class_counts is empty"),
    ],
)
def test_errors_say_what_to_do(make, message):
    with pytest.raises(ModelError, match=message):
        make()
