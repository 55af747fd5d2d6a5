"""LoRA and AdaptFormer against their equations, in a frozen transformer."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from callbacks.looking.network_attention import attention_maps
from lightning_modules import ModelError
from lightning_modules.networks import AdaptedNetwork, AdaptFormer, LoRA, TimmNetwork
from lightning_modules.networks.adapters import AdaptedMLP, LoRALinear

ADAPTERS = {
    "LoRA": LoRA(rank=2),
    "LoRA everywhere": LoRA(rank=2, layers=("qkv", "proj", "fc1", "fc2")),
    "AdaptFormer": AdaptFormer(bottleneck=16),
    "AdaptFormer, learned scale": AdaptFormer(bottleneck=16, scale=None),
}
SIZE = 32


@pytest.fixture(params=ADAPTERS.values(), ids=ADAPTERS.keys())
def adapter(request):
    return request.param


def adapted(adapter, **options):
    return AdaptedNetwork("test_vit", adapter, pretrained=False, size=SIZE, **options)


def trained(network):
    return {name for name, p in network.named_parameters() if p.requires_grad}


def disturb(network):
    """Gives everything that is trained other values, as training does."""
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))


def test_at_first_it_is_the_frozen_network(adapter):
    torch.manual_seed(0)
    plain = TimmNetwork("test_vit", pretrained=False, options={"img_size": SIZE}).eval()
    torch.manual_seed(0)
    network = adapted(adapter).eval()
    images = torch.rand(2, 3, SIZE, SIZE)
    assert torch.equal(network(images), plain(images))
    disturb(network)
    assert not torch.allclose(network.encode(images), plain.encode(images))


def test_adapters_and_classifier_alone_are_trained(adapter):
    torch.manual_seed(0)
    network = adapted(adapter)
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # in the first step, what comes before a 0 has no gradient
        optimizer.zero_grad()
        network(torch.rand(4, 3, SIZE, SIZE)).logsumexp(1).sum().backward()
        optimizer.step()
    changed = {n for n, value in network.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == trained(network)
    new = (
        network.state_dict().keys() - TimmNetwork("test_vit", pretrained=False).state_dict().keys()
    )
    inserted = {name for name in trained(network) if not name.startswith("model.head.")}
    assert inserted == {n for n in new if ".linear." not in n and ".mlp.mlp." not in n}


def test_number_of_trained_parameters():
    width, depth, classes = 64, 6, 7
    head = (width + 1) * classes
    update = 2 * (width + 3 * width)
    bottleneck = (width + 1) * 3 + (3 + 1) * width
    for adapter, parameters in ((LoRA(rank=2), update), (AdaptFormer(bottleneck=3), bottleneck)):
        numbers = [p.numel() for p in adapted(adapter).parameters() if p.requires_grad]
        assert sum(numbers) == depth * parameters + head


def test_lora_is_its_equation():
    torch.manual_seed(0)
    linear = nn.Linear(12, 20, dtype=torch.float64)
    lora = LoRALinear(linear, rank=4, alpha=6.0).double()
    nn.init.normal_(lora.b)
    x = torch.randn(3, 5, 12, dtype=torch.float64)
    weight = linear.weight + 6 / 4 * lora.b @ lora.a
    torch.testing.assert_close(lora(x), F.linear(x, weight, linear.bias))
    update = weight - linear.weight
    assert torch.linalg.matrix_rank(update) == 4
    merged = lora.merged()
    assert type(merged) is nn.Linear
    torch.testing.assert_close(merged.weight, weight)


def test_merged_updates_give_the_same_logits_in_a_network_without_adapters():
    torch.manual_seed(0)
    network = adapted(ADAPTERS["LoRA everywhere"]).eval()
    disturb(network)
    images = torch.rand(2, 3, SIZE, SIZE)
    expected = network(images)
    network.merge()
    torch.testing.assert_close(network(images), expected, atol=1e-4, rtol=1e-4)
    plain = TimmNetwork("test_vit", pretrained=False, options={"img_size": SIZE}).eval()
    plain.load_state_dict(network.state_dict())
    assert torch.equal(plain(images), network(images))


@pytest.mark.parametrize("scale", [0.1, None])
def test_adaptformer_is_its_equation(scale):
    torch.manual_seed(0)
    network = adapted(AdaptFormer(bottleneck=3, scale=scale)).eval().double()
    disturb(network)
    block = network.model.blocks[0]
    assert isinstance(block.mlp, AdaptedMLP)
    x = torch.randn(2, 5, 64, dtype=torch.float64)
    between = x + block.attn(block.norm1(x))
    normed, mlp = block.norm2(between), block.mlp
    hidden = F.linear(normed, mlp.down.weight, mlp.down.bias).relu()
    parallel = F.linear(hidden, mlp.up.weight, mlp.up.bias)
    s = mlp.scale if scale is None else scale
    torch.testing.assert_close(block(x), between + mlp.mlp(normed) + s * parallel)


def test_a_cosine_classifier_replaces_the_head():
    network = adapted(LoRA(), cosine_scale=25.0).eval()
    images = torch.rand(2, 3, SIZE, SIZE)
    cosines = F.cosine_similarity(network.encode(images)[:, None], network.model.head.weight, dim=2)
    torch.testing.assert_close(network(images), 25 * cosines)
    assert "model.head.weight" in trained(network)


def test_attention_of_adapted_transformers_can_be_drawn(adapter):
    network = adapted(adapter).eval()
    logits, maps = attention_maps(network, torch.rand(2, 3, SIZE, SIZE))
    assert logits.shape == (2, 7)
    assert maps


TINY = {"depth": 2, "embed_dim": 48, "num_heads": 2}
SWIN = {"depths": [1, 1], "embed_dim": 24, "num_heads": [1, 2], "window_size": 4}


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("vit_small_patch14_dinov2", TINY, 56),
        ("vit_small_patch16_dinov3", TINY, 64),
        ("swin_tiny_patch4_window7_224", SWIN, 64),
    ],
)
def test_other_transformers_can_be_adapted(name, options, size):
    for adapter in (LoRA(rank=2), AdaptFormer(bottleneck=2)):
        network = AdaptedNetwork(
            name, adapter, cosine_scale=25.0, options=options, size=size, pretrained=False
        )
        network(torch.rand(2, 3, size, size)).sum().backward()
        adapters = [m for m in network.modules() if isinstance(m, LoRALinear | AdaptedMLP)]
        ends = [m.b if isinstance(m, LoRALinear) else m.up.weight for m in adapters]
        assert len(ends) == 2
        assert all(end.grad.any() for end in ends)


def test_what_cannot_be_adapted_is_refused():
    with pytest.raises(ModelError, match="test_resnet is not a supported vision transformer"):
        AdaptedNetwork("test_resnet", LoRA(), pretrained=False)
    with pytest.raises(ModelError, match="no linear layers named qvk"):
        adapted(LoRA(layers=["qvk"]))
    with pytest.raises(ModelError, match="uses the weights of qkv directly"):
        AdaptedNetwork("beit_base_patch16_224", LoRA(), options=TINY, size=32, pretrained=False)
