import pytest
import torch
import torch.nn.functional as F
from torch import nn

from callbacks.errors import RunError
from callbacks.looking.network_attention import attention_maps, grad_cam, inside, rollout
from datamodules.classes import HAM10000_CLASSES
from lightning_modules import care
from lightning_modules.networks import (
    AttentionDecoder,
    CBAMNetwork,
    ContrastiveNetwork,
    HybridViT,
    LearnableWeightScaling,
    MultiHeadNetwork,
    TimmNetwork,
)

CLASSES = HAM10000_CLASSES.names
TREE = HAM10000_CLASSES.taxonomy


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    made = {
        "cnn": lambda: TimmNetwork("test_resnet", pretrained=False),
        "vit": lambda: TimmNetwork("test_vit", pretrained=False),
        "vit of any size": lambda: TimmNetwork("test_vit", pretrained=False),  # built for 160
        "vit of this size": lambda: TimmNetwork("test_vit3", pretrained=False, size=64),
        "hybrid": lambda: HybridViT(
            "vit_tiny_r_s16_p8_224", pretrained=False, size=64, options={"depth": 2}
        ),
        "scaled": lambda: LearnableWeightScaling(TimmNetwork("test_resnet", pretrained=False)),
        "contrastive": lambda: ContrastiveNetwork(TimmNetwork("test_resnet", pretrained=False)),
        "cbam": lambda: CBAMNetwork("test_resnet", pretrained=False),
        "heads": lambda: MultiHeadNetwork("test_resnet", CLASSES, TREE, pretrained=False),
        "decoder": lambda: AttentionDecoder("test_resnet", CLASSES, TREE, pretrained=False),
    }
    return made[kind]().eval()


def images(kind: str) -> torch.Tensor:
    return torch.rand(2, 3, *(2 * [160 if kind == "vit" else 64]))


KINDS = {
    "cnn": {"Grad-CAM": (2, 2)},
    "scaled": {"Grad-CAM": (2, 2)},
    "contrastive": {"Grad-CAM": (2, 2)},
    "hybrid": {"Grad-CAM": (2, 2)},
    "vit": {"rollout": (10, 10)},
    "vit of any size": {"rollout": (4, 4)},
    "vit of this size": {"rollout": (4, 4)},
    "cbam": {"spatial": (2, 2)},
    "heads": {"spatial": (2, 2)},
    "decoder": {"level1": (2, 2), "level2": (2, 2)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_network_shows_its_own_kind_and_stays_as_it_was(kind):
    model, x = network(kind), images(kind)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random, attributes = torch.get_rng_state(), set(vars(model))
    with torch.inference_mode():  # as Lightning validates
        expected = model(x)
        logits, maps = attention_maps(model, x)
    assert {name: tuple(heat.shape[1:]) for name, heat in maps.items()} == KINDS[kind]
    assert all((heat >= 0).all() and not heat.requires_grad for heat in maps.values())
    torch.testing.assert_close(logits, expected)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert set(vars(model)) == attributes
    with torch.inference_mode():
        assert torch.equal(model(x), expected)  # nothing is left hooked or replaced
    assert not getattr(model, "attention", None)


def test_for_pooling_and_a_linear_layer_grad_cam_is_the_class_activation_map():
    model, x = network("cnn"), images("cnn")
    logits, maps = attention_maps(model, x)
    features, weight = model.features(x), model.model.get_classifier().weight
    cam = torch.einsum("bk,bkhw->bhw", weight[logits.argmax(1)], features).relu()
    torch.testing.assert_close(maps["Grad-CAM"], cam.detach() / features[0, 0].numel())


@pytest.mark.usefixtures("float64")
def test_grad_cam_is_that_of_care_but_for_the_relu():
    features = torch.randn(3, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    logits = torch.einsum("bkhw,ck->bc", features.tanh(), torch.randn(7, 5).double())
    expected = care.grad_cam(features, logits, logits.argmax(1)).relu()
    torch.testing.assert_close(grad_cam(features, logits) * 24, expected)


def test_the_hybrid_maps_against_a_direct_computation():
    model, x = network("hybrid"), images("hybrid")
    vit = model.model
    tokens = vit._pos_embed(model.tokens(x))
    for block in vit.blocks[:-1]:
        tokens = block(tokens)
    last = vit.blocks[-1]
    normed = last.norm1(tokens).detach().requires_grad_()
    after = tokens.detach() + last.attn(normed)
    after = after + last.mlp(last.norm2(after))
    logits = vit.head(vit.norm(after)[:, 0])
    gradient = torch.autograd.grad(logits.amax(1).sum(), normed)[0]
    for b in range(2):
        weights = gradient[b, 1:].mean(0)
        heat = torch.stack([(weights * token).sum() for token in normed[b, 1:]])
        found = attention_maps(model, x)[1]["Grad-CAM"][b]
        torch.testing.assert_close(found, heat.relu().detach().view(2, 2))


def test_rollout_against_a_loop():
    layers = [torch.rand(1, 3, 4, 4).softmax(-1) for _ in range(3)]
    total = torch.eye(4)
    for layer in layers:
        mean = sum(layer[0, head] for head in range(3)) / 3
        mixed = 0.5 * mean + 0.5 * torch.eye(4)
        total = torch.tensor(
            [[sum(mixed[i, k] * total[k, j] for k in range(4)) for j in range(4)] for i in range(4)]
        )
    torch.testing.assert_close(rollout(layers)[0], total)
    torch.testing.assert_close(rollout(layers).sum(-1), torch.ones(1, 4))


def test_rollout_sees_the_weights_that_the_layers_use():
    model, x = network("vit"), images("vit")
    vit, layers = model.model, []
    tokens = vit._pos_embed(vit.patch_embed(model.normalize(x)))
    for block in vit.blocks:
        normed, heads = block.norm1(tokens), block.attn.num_heads
        q, k, _ = block.attn.qkv(normed).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        scale = q.shape[-1] ** -0.5
        layers.append((block.attn.q_norm(q) @ block.attn.k_norm(k).mT * scale).softmax(-1))
        tokens = block(tokens)
    expected = rollout(layers)[:, 0, 1:].detach().view(2, 10, 10)
    torch.testing.assert_close(attention_maps(model, x)[1]["rollout"], expected)


def test_a_map_in_the_lesion_has_all_points_and_one_outside_none():
    mask = torch.zeros(3, 8, 8)
    mask[:, :4, :4] = 1
    heat = torch.zeros(3, 8, 8)
    heat[0, 1, 2] = heat[1, 6, 6] = 1
    heat[2, 1, 1], heat[2, 6, 6] = 3, 1
    pointing, energy = inside(heat, mask)
    assert pointing.tolist() == [1, 0, 1]
    assert energy.tolist() == [1, 0, 0.75]


def test_a_map_that_is_the_same_everywhere_has_the_lesions_share_as_its_energy():
    mask = (torch.rand(2, 16, 16) > 0.7).float()
    _, energy = inside(torch.ones(2, 4, 4), mask)
    torch.testing.assert_close(energy, mask.mean((1, 2)))
    assert all(score.isnan().all() for score in inside(torch.zeros(2, 4, 4), mask))


def test_the_point_is_the_middle_of_the_highest_cell():
    mask = torch.zeros(1, 8, 12)
    mask[0, 2, 9] = 1  # the middle of the cell above on the right, of 2 x 2
    heat = torch.tensor([[[0.0, 1.0], [0.5, 0.5]]])
    assert inside(heat, mask)[0] == 1
    assert inside(heat.flip(1), mask)[0] == 0


def test_a_map_of_an_image_that_is_not_square():
    _, maps = attention_maps(network("vit of any size"), torch.rand(1, 3, 64, 96))
    assert maps["rollout"].shape == (1, 4, 6)


def test_what_has_no_map_is_refused():
    with pytest.raises(RunError, match="Sequential has no feature map"):
        attention_maps(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.rand(1, 3, 2, 2))


def test_a_network_that_keeps_no_attention_falls_back_to_grad_cam():
    model = CBAMNetwork("test_resnet", reduction=0, pretrained=False).eval()
    assert list(attention_maps(model, images("cbam"))[1]) == ["Grad-CAM"]


def test_transposed_features_stay_where_they_are():
    class Sides(nn.Module):
        def features(self, x):
            return F.avg_pool2d(x, 4)

        def forward(self, x):
            return self.features(x).mean((2, 3))[:, :2] * torch.tensor([2.0, 1.0])

    x = torch.zeros(1, 3, 16, 16)
    x[0, 0, :4, 12:] = 1  # above on the right
    heat = attention_maps(Sides(), x)[1]["Grad-CAM"][0]
    assert heat.argmax() == 3
