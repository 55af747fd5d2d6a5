import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from datamodules.classes import HAM10000_CLASSES
from lightning_modules import ModelError
from lightning_modules.networks import BALLADNetwork, CLIPTowers, SmallTowers, TimmNetwork

CLASSES = list(HAM10000_CLASSES.names)
DESCRIPTIONS = HAM10000_CLASSES.descriptions


@pytest.fixture
def towers():
    torch.manual_seed(0)
    return SmallTowers(TimmNetwork("test_resnet", pretrained=False), width=32).eval()


@pytest.fixture
def images():
    return torch.rand(4, 3, 32, 32)


@pytest.mark.usefixtures("float64")
def test_logits_are_scaled_cosines_with_the_descriptions(towers, images):
    images = images.double()
    logits = BALLADNetwork(towers, CLASSES, DESCRIPTIONS).double()(images)
    texts = towers.tokens([f"a dermoscopic photo of {text}." for text in DESCRIPTIONS.values()])
    seen = towers.encode_images(images)
    read = towers.encode_texts(texts.double())
    for i in range(4):
        for k in range(7):
            cosine = F.cosine_similarity(seen[i], read[k], dim=0)
            assert logits[i, k].item() == pytest.approx(100 * cosine.item(), rel=1e-9)
    assert logits.abs().max() <= 100


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("ratio", [0.0, 0.2])
def test_adapter_of_no_weight_and_identity_are_the_first_phase(towers, images, ratio):
    images = images.double()
    first = BALLADNetwork(towers, CLASSES, DESCRIPTIONS).double()(images)
    second = BALLADNetwork(towers, CLASSES, DESCRIPTIONS, adapter=True, ratio=ratio).double()
    if ratio:
        assert not torch.allclose(second(images), first, atol=1e-2)
        nn.init.eye_(second.adapter.weight)
    torch.testing.assert_close(second(images), first)


def test_second_phase_trains_the_adapter_alone(towers, images):
    network = BALLADNetwork(towers.requires_grad_(False), CLASSES, DESCRIPTIONS, adapter=True)
    network(images).sum().backward()
    trained = [name for name, p in network.named_parameters() if p.grad is not None]
    assert trained == ["adapter.weight"]


def test_descriptions_differ_and_are_the_same_everywhere(towers):
    tokens = towers.tokens(list(DESCRIPTIONS.values()))
    assert torch.allclose(tokens.norm(dim=1), torch.ones(7))
    alike = tokens @ tokens.T - torch.eye(7)
    assert alike.max() < 0.5
    assert tokens[CLASSES.index("nv")].nonzero().flatten()[:3].tolist() == [10, 37, 59]


def test_logits_are_float32_under_autocast(towers, images):
    with torch.autocast("cpu", torch.bfloat16):
        assert BALLADNetwork(towers, ["nv", "mel"])(images).dtype == torch.float32


def test_clip_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ModelError, match="pip install '.\\[clip\\]'"):
        CLIPTowers(Path("weights.pt"))
