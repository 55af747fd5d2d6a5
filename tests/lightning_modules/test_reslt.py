import pytest
import torch
import torch.nn.functional as F
from torch import nn

from datamodules.classes import HAM10000_CLASSES
from lightning_modules import ResLT
from lightning_modules.networks import LearnableWeightScaling, ResLTNetwork, TimmNetwork

NAMES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ResLTNetwork(TimmNetwork("test_resnet", pretrained=False))


def module(network, beta=0.9):
    reslt = ResLT(
        network,
        beta=beta,
        criterion=nn.CrossEntropyLoss(),
        optimizer=None,
        class_names=NAMES,
        shots=HAM10000_CLASSES.shots,
    )
    reslt.log = lambda *_: None
    return reslt


@pytest.fixture
def batch():
    return {"image": torch.rand(8, 3, 64, 64), "label": torch.tensor([0, 1, 1, 2, 3, 4, 5, 6])}


def test_prediction_is_the_sum_of_the_branches(network, batch):
    network.eval()
    branches = network.branches(batch["image"])
    assert branches.shape == (3, 8, 7)
    assert torch.equal(network(batch["image"]), branches.sum(0))


@pytest.mark.parametrize("gamma", [0.7, 0.3, 0.0])
def test_evaluation_divides_by_norms_and_leaves_out_the_bias(network, batch, gamma):
    network.eval()
    network.classifier.weight.data *= torch.arange(1, 8)[:, None]
    features = network.specialise(network.encoder.features(batch["image"])).mean((2, 3))
    network.gamma = gamma
    found = network.branches(batch["image"])
    for branch, own in zip(found, features.chunk(3, dim=1), strict=True):
        for c, w in enumerate(network.classifier.weight):
            expected = own @ w / w.square().sum() ** (gamma / 2)
            torch.testing.assert_close(branch[:, c], expected, rtol=1e-4, atol=1e-5)


def test_classifier_is_as_trained_in_training_and_on_demand(network):
    features = torch.rand(3, 8, network.classifier.in_features)
    as_trained = network.classifier(features)
    assert torch.equal(network.classify(features), as_trained)
    network.eval()
    assert not torch.allclose(network.classify(features), as_trained, atol=1e-3)
    network.gamma = None
    assert torch.equal(network.classify(features), as_trained)


def test_individual_loss_against_a_loop(network, batch):
    branches = network.branches(batch["image"])
    groups = [set(NAMES), set(NAMES) - {"nv"}, {"akiec", "df", "vasc"}]
    total, count = 0.0, 0
    for z, group in zip(branches, groups, strict=True):
        for logits, label in zip(z, batch["label"], strict=True):
            if NAMES[label] in group:
                total += -logits.log_softmax(0)[label].item()
                count += 1
    loss = module(network).individual(branches, batch["label"])
    assert count == 8 + 6 + 3
    assert loss.item() == pytest.approx(total / count, rel=1e-5)


def test_beta_0_is_cross_entropy_of_the_sum(network, batch):
    network.eval()
    expected = F.cross_entropy(network(batch["image"]), batch["label"])
    assert torch.equal(module(network, beta=0.0).training_step(batch, 0), expected)


def test_nevi_do_not_reach_the_branches_of_rarer_classes(network, batch):
    branches = network.branches(batch["image"]).detach().requires_grad_()
    module(network).individual(branches, torch.ones(8, dtype=torch.long)).backward()
    assert branches.grad[0].abs().sum() > 0
    assert not branches.grad[1:].any()


def test_learnable_weight_scaling_starts_as_the_identity(batch):
    network = TimmNetwork("test_resnet", pretrained=False).eval()
    scaled = LearnableWeightScaling(network)
    assert torch.equal(scaled(batch["image"]), network(batch["image"]))
    scaled.scale.data[3] = 2.0
    ratio = scaled(batch["image"]) / network(batch["image"])
    assert ratio[0].tolist() == pytest.approx([1, 1, 1, 2, 1, 1, 1])
