"""Second stages of decoupled learning against the formulas of their papers, in plain loops."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from lightning_modules import ModelError, OnePassClassifier, SecondStage, TauNormalization
from lightning_modules.losses import GeneralizedReweight, InverseFrequency
from lightning_modules.networks import (
    CosineHead,
    DisAlign,
    LearnableWeightScaling,
    LinearHead,
    NearestClassMean,
    NewHead,
    Probe,
    TauNormalized,
    TimmNetwork,
)
from lightning_modules.tau_normalization import balanced_accuracy
from tests.trainers import quiet_trainer

NAMES = ("mel", "nv", "bcc")
IMAGES = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3
ADJUSTMENTS = {"crt": NewHead, "lws": LearnableWeightScaling, "disalign": DisAlign}


def timm_network() -> TimmNetwork:
    return TimmNetwork("test_resnet", num_classes=3, pretrained=False, drop_rate=0.5)


def probe(head=None) -> Probe:
    return Probe(TimmNetwork("test_resnet", pretrained=False), head, num_classes=3)


@pytest.fixture(params=[timm_network, probe], ids=lambda make: make.__name__)
def network(request):
    """A network with a linear classifier, whose weights have different norms."""
    torch.manual_seed(1)
    network = request.param().eval()
    with torch.no_grad():
        network.linear.weight *= torch.tensor([[1.0], [5.0], [0.5]])
        network.linear.bias.normal_()
    return network


def loader() -> DataLoader:
    index = torch.arange(12)
    batches = [{"image": IMAGES[i], "label": LABELS[i], "index": i} for i in index.split(5)]
    return DataLoader(batches, batch_size=None)


def fit(module, **options):
    trainer = quiet_trainer(**({"max_epochs": 2} | options))
    trainer.fit(module, loader(), loader())
    return trainer


@torch.no_grad()
def test_tau_normalized_logits_are_those_of_the_loop(network):
    tau = 0.7
    found = TauNormalized(network, tau)(IMAGES)
    for f, logits in zip(network.vectors(IMAGES), found, strict=True):
        for w, logit in zip(network.linear.weight, logits, strict=True):
            norm = sum(float(x) ** 2 for x in w) ** 0.5
            assert logit.item() == pytest.approx(float(w @ f) / norm**tau, rel=1e-4, abs=1e-5)
    unbiased = network(IMAGES) - network.linear.bias
    torch.testing.assert_close(TauNormalized(network, 0.0)(IMAGES), unbiased)


@torch.no_grad()
def test_scaled_logits_are_those_of_scaled_weights(network):
    scaled = LearnableWeightScaling(network, 3)
    scaled.scale.copy_(torch.tensor([0.5, 1.0, 3.0]))
    for f, logits in zip(network.vectors(IMAGES), scaled(IMAGES), strict=True):
        rows = zip(scaled.scale, network.linear.weight, network.linear.bias, strict=True)
        expected = [(s * w) @ f + s * b for s, w, b in rows]
        torch.testing.assert_close(logits, torch.stack(expected))


@torch.no_grad()
def test_aligned_logits_are_those_of_the_loop(network):
    aligned = DisAlign(network, 3)
    assert torch.equal(aligned(IMAGES), network(IMAGES))  # at first
    for parameter in (aligned.magnitude, aligned.margin, *aligned.confidence.parameters()):
        parameter.normal_(std=0.3)
    alpha, beta = aligned.magnitude, aligned.margin
    v, b = aligned.confidence.weight[0], aligned.confidence.bias[0]
    for f, z, found in zip(network.vectors(IMAGES), network(IMAGES), aligned(IMAGES), strict=True):
        sigma = 1 / (1 + (-(v @ f + b)).exp())
        expected = [sigma * (alpha[c] * z[c] + beta[c]) + (1 - sigma) * z[c] for c in range(3)]
        torch.testing.assert_close(found, torch.stack(expected))


@torch.no_grad()
def test_a_new_head_classifies_the_vectors(network):
    renewed = NewHead(network, 3)
    head = renewed.head
    assert isinstance(head, LinearHead)
    expected = [head.linear.weight @ f + head.linear.bias for f in network.vectors(IMAGES)]
    torch.testing.assert_close(renewed(IMAGES), torch.stack(expected))


def test_generalized_reweight_is_a_power_of_the_inverse_frequency():
    counts = [80, 15, 5]
    expected = [(1 / (n / 100)) ** 1.2 for n in counts]
    assert GeneralizedReweight(rho=1.2)(counts).tolist() == pytest.approx(expected)
    assert torch.equal(GeneralizedReweight(rho=1)(counts), InverseFrequency()(counts))
    assert GeneralizedReweight(rho=0)(counts).tolist() == [1, 1, 1]


@pytest.mark.parametrize("adjustment", ADJUSTMENTS.values(), ids=ADJUSTMENTS)
def test_training_moves_the_adjustment_and_no_weight_of_the_first_stage(network, adjustment):
    optimizer = partial(torch.optim.SGD, lr=0.1)
    module = SecondStage(
        network, nn.CrossEntropyLoss(), optimizer, adjustment=adjustment, class_names=NAMES
    )
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    fit(module)
    after = module.network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if not name.startswith("network.")}


def test_the_nearest_class_mean_is_that_of_the_vectors(network):
    module = OnePassClassifier(network, torch.optim.SGD, head=NearestClassMean, class_names=NAMES)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fit(module, max_epochs=1)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    vectors = network.vectors(IMAGES)
    means = [F.normalize(vectors[c::3], dim=1).mean(0) for c in range(3)]
    for f, logits in zip(vectors, module(IMAGES), strict=True):
        cosines = [f @ mean / (f.norm() * mean.norm()) for mean in means]
        torch.testing.assert_close(logits * module.head.temperature, torch.stack(cosines))


def normalization(network, **options) -> TauNormalization:
    return TauNormalization(network, torch.optim.SGD, class_names=NAMES, **options)


def test_tau_is_the_best_of_the_grid_on_the_validation_split(network):
    module = normalization(network)
    trainer = fit(module, max_epochs=1)
    with torch.no_grad():
        by_tau = {}
        for tau in module.taus:
            predicted = TauNormalized(network, tau)(IMAGES).argmax(1)
            recalls = [(predicted[c::3] == c).float().mean().item() for c in range(3)]
            by_tau[tau] = sum(recalls) / 3
    best = max(by_tau.values())
    chosen = min(tau for tau, value in by_tau.items() if value > best - 1e-6)
    assert module.network.tau.item() == pytest.approx(chosen)
    assert trainer.callback_metrics["val/tau"].item() == pytest.approx(chosen)
    assert trainer.callback_metrics["val/balanced_accuracy"].item() == pytest.approx(best)
    assert "network.tau" in module.state_dict()


def test_other_commands_use_the_tau_of_fit(network):
    module = normalization(network)
    fit(module, max_epochs=1)
    module.network.tau.fill_(1.3)
    (validated,) = quiet_trainer().validate(module, loader(), verbose=False)
    assert module.network.tau.item() == pytest.approx(1.3)
    with torch.no_grad():
        expected = balanced_accuracy(TauNormalized(network, 1.3)(IMAGES), LABELS)
    assert validated["val/balanced_accuracy"] == pytest.approx(expected)


def test_equal_taus_give_the_smallest(network):
    with torch.no_grad():
        network.linear.weight /= network.linear.weight.norm(dim=1, keepdim=True)
    module = normalization(network, taus=[1.5, 0.5, 1.0])
    fit(module, max_epochs=1)
    assert module.network.tau.item() == 0.5


@pytest.mark.parametrize(
    ("name", "options"),
    [("vgg11", {"mlp_ratio": 0.01}), ("mobilenetv3_small_050", {}), ("test_vit", {})],
)
def test_vectors_and_linear_are_the_network(name, options):
    network = TimmNetwork(name, num_classes=3, pretrained=False, size=32, options=options).eval()
    with torch.no_grad():
        logits = network.linear(network.vectors(IMAGES[:2]))
        torch.testing.assert_close(logits, network(IMAGES[:2]))


def test_what_has_no_linear_classifier_is_refused():
    network = probe(CosineHead)
    for make in (TauNormalized, DisAlign, NewHead):
        with pytest.raises(ModelError, match="classifier of this Probe is a CosineHead"):
            make(network)
    with pytest.raises(ModelError, match="is no grid"):
        normalization(timm_network(), taus=[])
