from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_modules import BBN, ModelError
from lightning_modules.networks import BBNNetwork, TimmNetwork


@pytest.fixture
def network():
    torch.manual_seed(0)
    return BBNNetwork(TimmNetwork("test_resnet", pretrained=False))


@pytest.fixture
def batch():
    return {"image": torch.rand(8, 3, 64, 64), "label": torch.arange(8) % 7}


def test_branches_of_resnet50_are_bottlenecks_in_place_of_its_last():
    network = BBNNetwork(TimmNetwork("resnet50.a1_in1k", pretrained=False))
    convolutions = 2048 * 512 + 512 * 512 * 3 * 3 + 512 * 2048
    norms = 2 * (512 + 512 + 2048)
    branches = (network.conventional, network.rebalancing)
    for branch in branches:
        assert sum(p.numel() for p in branch.parameters()) == convolutions + norms  # 4.46 M
    whole = TimmNetwork("resnet50.a1_in1k", pretrained=False)
    headless = sum(p.numel() for p in whole.parameters()) - 7 * 2048 - 7
    shared = sum(p.numel() for p in network.encoder.parameters())
    assert shared == headless - convolutions - norms
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize(("name", "width"), [("resnet18.a1_in1k", 512), ("test_resnet", 96)])
def test_branches_of_plain_networks_are_plain_blocks(name, width):
    encoder = TimmNetwork(name, pretrained=False).eval()
    images = torch.rand(2, 3, 64, 64)
    expected = encoder.features(images)
    network = BBNNetwork(encoder).eval()
    for branch in (network.conventional, network.rebalancing):
        sizes = [m.weight.shape[2:] for m in branch.modules() if isinstance(m, nn.Conv2d)]
        assert sizes[:2] == [(3, 3), (3, 3)]
        assert torch.equal(branch(network.encoder.features(images)), expected)
    assert network.classifier.in_features == 2 * width


def test_branches_do_not_share_their_weights(network):
    images = torch.rand(2, 3, 64, 64)
    network.mixed(images, images, 1.0).sum().backward()
    assert any(p.grad.any() for p in network.conventional.parameters())
    assert not any(p.grad.any() for p in network.rebalancing.parameters())


def test_encoders_without_residual_blocks_are_refused():
    with pytest.raises(ModelError, match="ResNet"):
        BBNNetwork(TimmNetwork("test_vit", pretrained=False))


def test_batch_norm_sees_one_distribution_at_a_time(network, batch):
    """As in the published code, logits of the natural images do not depend on the other images."""
    natural = batch["image"][::2]
    first, second = (network.mixed(natural, other, 1.0) for other in batch["image"].split(4))
    assert torch.equal(first, second)


def module(network, epoch, epochs=9):
    bbn = BBN(network, criterion=nn.CrossEntropyLoss(), optimizer=None)
    bbn.trainer = SimpleNamespace(max_epochs=epochs, current_epoch=epoch)
    bbn.log = lambda *_: None
    return bbn


def test_alpha_falls_as_a_parabola(network):
    alphas = [module(network, epoch).alpha for epoch in range(9)]
    assert alphas == pytest.approx([1 - (epoch / 10) ** 2 for epoch in range(9)])


def test_first_epoch_trains_the_natural_half_alone(network, batch):
    bbn = module(network, epoch=0)
    loss = bbn.training_step(batch, 0)
    torch.manual_seed(0)
    logits = network.mixed(batch["image"][::2], batch["image"][1::2], 1.0)
    assert loss.item() == pytest.approx(F.cross_entropy(logits, batch["label"][::2]).item())
    loss.backward()
    width = network.classifier.in_features // 2
    assert network.classifier.weight.grad[:, :width].any()
    assert not network.classifier.weight.grad[:, width:].any()


def test_loss_weighs_the_labels_of_both_halves(network, batch):
    network.eval()
    loss = module(network, epoch=5).training_step(batch, 0)
    logits = network.mixed(batch["image"][::2], batch["image"][1::2], 0.75)
    expected = 0.75 * F.cross_entropy(logits, batch["label"][::2])
    expected += 0.25 * F.cross_entropy(logits, batch["label"][1::2])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_inference_is_alpha_a_half(network, batch):
    network, images = network.double().eval(), batch["image"].double()
    torch.testing.assert_close(network(images), network.mixed(images, images, 0.5))


def test_odd_batches_and_endless_trainings_are_refused(network, batch):
    with pytest.raises(ModelError, match="even"):
        module(network, 0).training_step({k: v[:7] for k, v in batch.items()}, 0)
    with pytest.raises(ModelError, match="max_epochs"):
        _ = module(network, 0, epochs=-1).alpha
