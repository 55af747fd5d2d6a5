"""Layer-wise learning rates and selective weight decay, against their closed forms."""

from functools import partial

import pytest
import torch
from torch import nn

from lightning_modules import Classifier, ContrastiveClassifier, ModelError
from lightning_modules.losses import SupConLoss
from lightning_modules.networks import (
    ContrastiveNetwork,
    HybridViT,
    LearnableWeightScaling,
    TimmNetwork,
)
from lightning_modules.schedules import WarmupCosine

DECAY = 0.5
# Number of layers behind each layer, by the beginning of its parameters' names.
BEHIND = {
    "test_vit": {
        "cls_token": 7, "pos_embed": 7, "patch_embed": 7,
        **{f"blocks.{i}.": 6 - i for i in range(6)}, "norm": 1, "head": 0,
    },
    "test_efficientnet": {
        "conv_stem": 6, "bn1": 6,
        "blocks.0.0": 5, "blocks.1.0": 4, "blocks.2.0": 3, "blocks.3.0": 2, "blocks.4.0": 1,
        "conv_head": 1, "bn2": 1, "classifier": 0,
    },
    "test_convnext": {
        "stem": 10,
        "stages.0.blocks.0": 9,
        "stages.1.downsample": 8, "stages.1.blocks.0": 8, "stages.1.blocks.1": 7,
        "stages.2.downsample": 6, **{f"stages.2.blocks.{i}": 6 - i for i in range(4)},
        "stages.3.downsample": 2, "stages.3.blocks.0": 2, "stages.3.blocks.1": 1,
        "head": 0,
    },
}  # fmt: skip


def classifier(network, **options):
    optimizer = partial(torch.optim.AdamW, lr=1.0, weight_decay=0.3)
    return Classifier(network, nn.CrossEntropyLoss(), optimizer, **options)


def settings(module):
    """Learning rate and weight decay of each trained parameter, by its name."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in module.configure_optimizers().param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("name", BEHIND)
def test_each_layer_learns_at_its_own_rate(name):
    network = TimmNetwork(name, pretrained=False)
    rates = {key: lr for key, (lr, _) in settings(classifier(network, layer_decay=DECAY)).items()}
    expected = {}
    for key, _ in network.named_parameters():
        behind = [n for start, n in BEHIND[name].items() if key.startswith(f"model.{start}")]
        expected[f"network.{key}"] = DECAY ** min(behind)
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(("name", "listed"), [("test_vit", 2), ("test_efficientnet", 0)])
def test_only_matrices_and_kernels_decay(name, listed):
    network = TimmNetwork(name, pretrained=False)
    module = classifier(network, decay_norm_and_bias=False)
    undecayed = {key for key, (_, decay) in settings(module).items() if decay == 0}
    assert {decay for _, decay in settings(module).values()} == {0, 0.3}
    vectors = {f"network.{key}" for key, p in network.named_parameters() if p.ndim == 1}
    assert undecayed > vectors or not listed
    assert undecayed - vectors == {
        f"network.model.{key}" for key in ("cls_token", "pos_embed")[:listed]
    }
    everything = settings(classifier(network, layer_decay=DECAY))
    assert {decay for _, decay in everything.values()} == {0.3}


def test_factors_of_submodules_multiply_and_frozen_layers_are_left_out():
    network = LearnableWeightScaling(TimmNetwork("test_vit", pretrained=False))
    network.network.model.blocks[:3].requires_grad_(False)
    module = classifier(
        network,
        layer_decay=DECAY,
        decay_norm_and_bias=False,
        lr_factors={"network.network": 0.1},
    )
    found = settings(module)
    assert found["network.scale"] == (1.0, 0)  # a vector of no layer
    assert found["network.network.model.head.weight"] == pytest.approx((0.1, 0.3))
    assert found["network.network.model.blocks.3.attn.qkv.weight"] == pytest.approx((0.0125, 0.3))
    assert found["network.network.model.patch_embed.proj.bias"] == pytest.approx((0.1 / 2**7, 0))
    assert not any(".blocks.2." in name for name in found)


def test_the_cnn_of_a_hybrid_is_its_stem():
    network = HybridViT("test_vit", pretrained=False, cnn="test_resnet", cnn_stages=2, size=32)
    found = settings(classifier(network, layer_decay=DECAY))
    stem = {lr for name, (lr, _) in found.items() if "backbone" in name}
    assert stem == {DECAY**7}
    assert len(found) == len(list(network.parameters()))


def test_a_schedule_keeps_the_ratios():
    optimizer = classifier(
        TimmNetwork("test_vit", pretrained=False), layer_decay=DECAY
    ).configure_optimizers()
    peaks = torch.tensor([group["lr"] for group in optimizer.param_groups])
    schedule = WarmupCosine(optimizer, total_steps=10, warmup=0.2)
    for _ in range(9):
        rates = torch.tensor(schedule.get_last_lr())
        assert torch.allclose(rates / rates.max(), peaks / peaks.max())
        optimizer.step()
        schedule.step()


def test_key_networks_are_in_no_group_and_projectors_learn_at_the_full_rate():
    encoder = TimmNetwork("test_vit", pretrained=False)
    network = ContrastiveNetwork(encoder, embedding=8)
    optimizer = partial(torch.optim.SGD, lr=1.0, weight_decay=0.3)
    module = ContrastiveClassifier(
        network, SupConLoss(), momentum=0.9, optimizer=optimizer, layer_decay=DECAY
    )
    found = settings(module)
    assert found.keys() == {f"network.{name}" for name, _ in network.named_parameters()}
    assert found["network.projector.0.weight"][0] == found["network.classifier.weight"][0] == 1
    # Without its head, the last layer of the encoder is its last block.
    assert found["network.encoder.model.blocks.5.mlp.fc1.weight"][0] == 1
    assert found["network.encoder.model.blocks.3.mlp.fc1.weight"][0] == DECAY**2


def test_what_cannot_be_is_refused():
    with pytest.raises(ModelError, match=r"layer_decay=1.5 is out of range"):
        classifier(nn.Linear(2, 2), layer_decay=1.5)
    with pytest.raises(ModelError, match="no trainable layers of a timm model"):
        classifier(nn.Linear(2, 2), layer_decay=0.5).configure_optimizers()
