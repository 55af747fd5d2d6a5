import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from datamodules.classes import HAM10000_CLASSES
from lightning_modules.networks.cbam import CBAM, CBAMNetwork, MultiHeadNetwork
from lightning_modules.networks.timm_network import TimmNetwork

NAMES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")


def flat(**options):
    torch.manual_seed(0)
    return CBAMNetwork("test_resnet", pretrained=False, **options)


def multi_head(**options):
    torch.manual_seed(0)
    return MultiHeadNetwork(
        "test_resnet", NAMES, HAM10000_CLASSES.taxonomy, pretrained=False, **options
    )


def test_without_weights_it_gives_a_quarter():
    """Both attention maps are sigmoid(0) = 1/2."""
    cbam, features = CBAM(32).eval(), torch.randn(2, 32, 5, 5)
    for parameter in [*cbam.channel.parameters(), cbam.spatial.conv.weight]:
        nn.init.zeros_(parameter)
    attended, weights = cbam(features)
    assert torch.equal(attended, features / 4)
    assert torch.equal(weights, torch.full((2, 5, 5), 0.5))


@pytest.mark.parametrize("training", [True, False])
def test_it_is_the_published_module(training):
    """Naive loop over positions, from the paper's equations and the published code."""
    torch.manual_seed(0)
    cbam, x = CBAM(32, reduction=8).double().train(training), torch.randn(3, 32, 4, 5).double()
    down, up = cbam.channel.mlp[0], cbam.channel.mlp[2]
    assert down.weight.shape == (4, 32)

    def mlp(pooled):
        return up.weight @ (down.weight @ pooled + down.bias).relu() + up.bias

    scaled = torch.stack(
        [i * (mlp(i.mean((1, 2))) + mlp(i.amax((1, 2)))).sigmoid()[:, None, None] for i in x]
    )
    kernel, maps = cbam.spatial.conv.weight[0], torch.zeros(3, 4, 5).double()
    for n, image in enumerate(scaled):
        padded = F.pad(torch.stack([image.amax(0), image.mean(0)]), (3, 3, 3, 3))
        for row in range(4):
            for column in range(5):
                window = padded[:, row : row + 7, column : column + 7]
                maps[n, row, column] = (window * kernel).sum()
    if training:
        maps = maps - maps.mean()
    variance = maps.var(correction=0) if training else 1.0
    weights = (maps / (variance + 1e-5) ** 0.5).sigmoid()
    attended, kept = cbam(x)
    assert torch.allclose(kept, weights)
    assert torch.allclose(attended, scaled * weights[:, None])


def test_the_norm_has_the_published_momentum_and_the_convolution_no_bias():
    spatial = CBAM(16).spatial
    assert spatial.norm.momentum == 0.01
    assert spatial.conv.bias is None


def test_without_attention_it_is_timms():
    network = flat(reduction=0).eval()
    plain = TimmNetwork("test_resnet", pretrained=False).eval()
    plain.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(network(images), plain(images))


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("make", [flat, multi_head])
def test_attention_is_kept_when_asked_for(make, size):
    network, images = make(), torch.rand(2, 3, size, size)
    assert network(images).shape == (2, 7)
    assert not network.attention
    network.keep_attention = True
    network(images)
    (maps,) = network.attention.values()
    assert maps.shape == (2, size // 32, size // 32)
    assert not maps.requires_grad
    assert ((maps > 0) & (maps < 1)).all()


@pytest.mark.parametrize("make", [flat, multi_head])
def test_gradients_reach_every_parameter(make):
    network = make()
    out = network.levels(torch.rand(4, 3, 64, 64)) if make is multi_head else [network(IMAGES)]
    sum(logits.square().sum() for logits in out).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


IMAGES = torch.rand(4, 3, 64, 64)


@pytest.mark.parametrize("make", [flat, multi_head])
def test_half_precision_is_finite(make):
    with torch.autocast("cpu", torch.bfloat16):
        loss = make()(IMAGES).float().square().sum()
    assert loss.isfinite()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_head_for_each_level(depth):
    network = multi_head(depth=depth).eval()
    levels = network.levels(IMAGES)
    assert [x.shape[1] for x in levels] == [[7], [2, 7], [2, 4, 7]][depth - 1]
    assert torch.equal(network(IMAGES), levels[-1])


def test_one_level_without_attention_is_a_flat_classifier_of_pooled_features():
    network = multi_head(depth=1, reduction=0).eval()
    plain = TimmNetwork("test_resnet", pretrained=False).eval()
    plain.model.load_state_dict(network.model.state_dict(), strict=False)
    plain.model.fc.load_state_dict(network.heads[0].state_dict())
    images = IMAGES.double()
    torch.testing.assert_close(network.double()(images), plain.double()(images))


def test_nothing_is_left_behind_the_features_of_vgg(monkeypatch):
    """The last two layers of VGG, with 120 M parameters, are dropped; tested on a tiny VGG."""
    create = timm.create_model

    def tiny(name, pretrained=False, **options):
        return create("vgg11", pretrained=False, mlp_ratio=0.01, **options)

    monkeypatch.setattr(timm, "create_model", tiny)
    network = MultiHeadNetwork("vgg16", NAMES, HAM10000_CLASSES.taxonomy, pretrained=False)
    names = {name.split(".")[1] for name, _ in network.model.named_parameters(prefix="model")}
    assert names == {"features"}
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 7)
