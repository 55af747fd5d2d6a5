"""Small models of timm; the published names are built once, without weights."""

import pytest
import timm
import torch

from lightning_modules import ModelError
from lightning_modules.networks import HybridViT

SMALL = {"name": "test_vit", "pretrained": False, "cnn": "test_resnet", "cnn_stages": 2}
TINY = {"name": "vit_tiny_r_s16_p8_224", "pretrained": False, "options": {"depth": 2}}


@pytest.mark.parametrize(
    ("arguments", "size", "grid"),
    [
        (SMALL, 64, (8, 8)),
        (SMALL, 32, (4, 4)),
        (TINY, 64, (2, 2)),
        ({"name": "test_vit", "pretrained": False}, 48, (3, 3)),
        ({"name": "test_vit2", "pretrained": False}, 32, (2, 2)),  # registers, average pooling
    ],
)
@torch.no_grad()
def test_the_two_halves_are_timms_whole(arguments, size, grid):
    network = HybridViT(**arguments, size=size).eval()
    images = torch.rand(2, 3, size, size)
    tokens = network.tokens(images)
    assert tokens.shape[:2] == (2, grid[0] * grid[1])
    assert network.grid == grid
    model = network.model
    normalized = (images - network.mean) / network.std
    features = model.forward_features(normalized)
    assert torch.equal(network.encode(images), model.forward_head(features, pre_logits=True))
    assert torch.equal(network(images), model(normalized))
    assert network.encode(images).shape == (2, network.width)


@pytest.mark.parametrize(
    ("name", "grid", "width"),
    [("vit_small_resnet50d_s16_224", (14, 14), 768), ("vit_small_r26_s32_224", (7, 7), 384)],
)
def test_published_hybrids_by_name(name, grid, width):
    network = HybridViT(name, pretrained=False, options={"depth": 1})
    assert network.grid == grid
    assert network.width == width
    assert network.tokens(torch.rand(1, 3, 224, 224)).shape == (1, grid[0] * grid[1], width)


@torch.no_grad()
def test_a_token_is_of_its_place_in_the_picture():
    network = HybridViT("test_vit", pretrained=False, size=48).eval()
    images = torch.rand(1, 3, 48, 48)
    changed = images.clone()
    changed[..., 16:32, 32:48] = 0  # the patch of row 1 and column 2
    difference = (network.tokens(images) != network.tokens(changed)).any(2)[0]
    assert difference.nonzero().tolist() == [[1 * 3 + 2]]


def test_position_embedding_is_resampled_as_timm_does(tmp_path):
    published = timm.create_model("test_vit", img_size=64, num_classes=1000)
    torch.save(published.state_dict(), tmp_path / "vit.pth")
    network = HybridViT("test_vit", weights=tmp_path / "vit.pth", size=96)
    published.set_input_size(img_size=(96, 96))
    assert torch.equal(network.model.pos_embed, published.pos_embed)
    assert torch.equal(network.model.cls_token, published.cls_token)


@torch.no_grad()
def test_weights_of_the_convolutional_stage_alone(tmp_path):
    published = timm.create_model("test_resnet", num_classes=1000).eval()
    torch.save(published.state_dict(), tmp_path / "cnn.pth")
    network = HybridViT(**SMALL | {"weights": tmp_path / "cnn.pth"}, size=32).eval()
    images = torch.rand(1, 3, 32, 32)
    expected = published.forward_intermediates(images, indices=[2], intermediates_only=True)[0]
    found = network.model.patch_embed.backbone(images)[0]  # in channels-last memory
    torch.testing.assert_close(found, expected)


def test_images_are_normalized_for_the_convolutional_stage():
    small = HybridViT("test_vit", pretrained=False, cnn="resnet10t", size=32)
    assert small.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_gradients_reach_the_convolutions_through_the_tokens():
    network = HybridViT(**SMALL, size=32)
    vectors = network.encode_tokens(network.tokens(torch.rand(2, 3, 32, 32)))
    (vectors * torch.randn_like(vectors)).sum().backward()  # a sum of normed vectors is constant
    assert network.model.patch_embed.backbone.conv1[0].weight.grad.abs().sum() > 0


def test_half_precision():
    network = HybridViT(**SMALL, size=32).eval().bfloat16()
    assert network.encode(torch.rand(2, 3, 32, 32)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "test_resnet"}, "test_resnet is not a supported vision transformer"),
        ({"name": "vit_relpos_small_patch16_224"}, "is not a supported vision transformer"),
        (
            {"name": "test_vit", "size": 40},
            "40 pixels into whole patches: change --data.size",
        ),
        (TINY | {"size": 72}, "72 pixels into whole patches"),
        ({"name": "test_vit", "cnn": "resnet81"}, "no model 'resnet81'"),
        ({"name": "test_vit", "options": {"dept": 3}}, "dept"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(arguments, message):
    with pytest.raises(ModelError, match=message):
        HybridViT(**{"pretrained": False, "size": 32} | arguments)
