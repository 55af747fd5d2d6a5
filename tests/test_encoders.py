"""Families of timm encoders at sizes other than their own, with random weights and few layers."""

import pytest
import torch

from callbacks.errors import RunError
from callbacks.looking.network_attention import attention_maps
from lightning_modules import ModelError
from lightning_modules.networks import TimmNetwork

VIT = {"depth": 1, "embed_dim": 32, "num_heads": 2}
SWIN = {"depths": [1, 1, 1, 1], "embed_dim": 24, "num_heads": [1, 1, 2, 2]}
CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}

# Name, options, image size, rows of the feature map, kind of map.
ENCODERS = [
    ("vit_small_patch14_dinov2", VIT, 56, 4, "rollout"),
    ("vit_small_patch14_reg4_dinov2", VIT, 70, 5, "rollout"),
    ("vit_small_patch16_dinov3", VIT, 48, 3, "rollout"),
    ("convnext_tiny.dinov3_lvd1689m", CONVNEXT, 72, 2, "Grad-CAM"),
    ("vit_base_patch16_siglip_224", VIT, 48, 3, "rollout"),  # of SigLIP and SigLIP 2
    ("vit_base_patch16_siglip_gap_224", VIT, 80, 5, "rollout"),
    ("naflexvit_base_patch16_siglip", VIT, 48, 3, "rollout"),
    ("naflexvit_base_patch16_gap", VIT, 80, 5, "rollout"),
    ("vit_base_patch16_clip_224", VIT, 48, 3, "rollout"),
    ("vit_base_patch16_clip_quickgelu_224", VIT, 80, 5, "rollout"),
    ("vit_pe_core_tiny_patch16_384", VIT, 48, 3, "rollout"),
    ("beitv2_base_patch16_224", VIT, 48, 3, "rollout"),
    ("eva02_tiny_patch14_224", VIT, 56, 4, "rollout"),
    ("deit_tiny_distilled_patch16_224", VIT, 48, 3, "rollout"),
    ("vit_tiny_r_s16_p8_224", {"depth": 1}, 96, 3, "Grad-CAM"),
    ("swin_tiny_patch4_window7_224", SWIN, 72, 3, "Grad-CAM"),
    ("swinv2_tiny_window8_256", SWIN, 72, 3, "Grad-CAM"),
    ("convnext_tiny", CONVNEXT, 75, 2, "Grad-CAM"),
    ("convnextv2_atto", CONVNEXT, 72, 2, "Grad-CAM"),
    ("tf_efficientnet_lite0", {}, 75, 3, "Grad-CAM"),
]


@pytest.fixture(params=ENCODERS, ids=[name for name, *_ in ENCODERS], scope="module")
def encoder(request):
    name, options, size, rows, kind = request.param
    torch.manual_seed(0)
    network = TimmNetwork(name, pretrained=False, options=options, size=size).eval()
    return network, torch.rand(2, 3, size, size), rows, kind


@torch.no_grad()
def test_features_vectors_and_logits(encoder):
    network, images, rows, _ = encoder
    features = network.features(images)
    places = features.shape[2:].numel() if features.ndim == 4 else features.shape[1]
    prefix = getattr(network.model, "num_prefix_tokens", 0)
    assert places == rows**2 + prefix
    assert features.shape[1 if features.ndim == 4 else 2] == network.channels
    assert network.encode(images).shape == (2, network.width)
    assert torch.equal(network.classify(features), network(images))
    assert network(images).shape == (2, 7)
    assert torch.equal(network(images), network.model(network.normalize(images)))


def test_a_map_of_where_it_looks(encoder):
    network, images, rows, kind = encoder
    logits, maps = attention_maps(network, images)
    torch.testing.assert_close(logits, network(images))
    assert list(maps) == [kind]
    assert maps[kind].shape == (2, rows, rows)
    assert maps[kind].isfinite().all()


def test_a_step_of_training_reaches_every_parameter(encoder):
    network, images, _, _ = encoder
    network.train()
    torch.nn.functional.cross_entropy(network(images), torch.tensor([0, 1])).backward()
    assert [name for name, x in network.named_parameters() if x.grad is None] == []
    network.zero_grad()
    network.eval()


def test_an_encoder_whose_tokens_form_no_grid():
    options = VIT | {"depth": 2}
    network = TimmNetwork("cait_xxs24_224", pretrained=False, options=options, size=48).eval()
    with pytest.raises(RunError, match="10 patches do not form a grid: no map is drawn"):
        attention_maps(network, torch.rand(1, 3, 48, 48))


@pytest.mark.parametrize(
    ("name", "patch", "sizes"),
    [
        ("vit_small_patch14_dinov2", 14, "56 or 70"),
        ("vit_small_patch16_dinov3", 16, "64 or 80"),
        ("naflexvit_base_patch16_siglip", 16, "64 or 80"),
    ],
)
def test_images_of_no_whole_number_of_patches(name, patch, sizes):
    message = f"patches of {patch} pixels, and 68 pixels .* set --data.size={sizes}"
    with pytest.raises(ModelError, match=message):
        TimmNetwork(name, pretrained=False, options=VIT, size=68)


def test_images_smaller_than_a_patch():
    with pytest.raises(ModelError, match="8 pixels are no whole number of them: .*size=16\\."):
        TimmNetwork("test_vit3", pretrained=False, size=8)
