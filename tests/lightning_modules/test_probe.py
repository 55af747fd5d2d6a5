"""Probes: frozen encoders that checkpoints do not hold, and heads against plain loops."""

import copy

import pytest
import torch
import torch.nn.functional as F

from callbacks.looking.network_attention import attention_maps
from lightning_modules import ModelError, OnePassClassifier
from lightning_modules.networks import (
    CosineHead,
    KNearestNeighbors,
    LearnableWeightScaling,
    MLPHead,
    NearestClassMean,
    Probe,
    TimmNetwork,
)

IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
VECTORS = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(30) % 3


def probe(seed: int = 0, name: str = "test_efficientnet", **options) -> Probe:
    torch.manual_seed(seed)
    return Probe(TimmNetwork(name, pretrained=False), num_classes=3, **options)


@pytest.mark.parametrize("stages", [0, 2])
def test_encoded_images_give_the_logits_of_the_images(stages):
    network = probe(trained_stages=stages).eval()
    encoded = network.encode(IMAGES)
    assert torch.equal(network(encoded), network(IMAGES))
    torch.testing.assert_close(network(encoded.half()), network(IMAGES), atol=1e-2, rtol=1e-2)


def test_stages_that_are_trained_make_what_they_made_before():
    torch.testing.assert_close(
        probe(trained_stages=2).eval().vectors(IMAGES), probe().eval().vectors(IMAGES)
    )
    with pytest.raises(ModelError, match="set 0 to 4"):
        probe(trained_stages=5)
    with pytest.raises(ModelError, match="A ResNet has no stages"):
        probe(name="test_resnet", trained_stages=1)


@pytest.mark.parametrize("stages", [0, 2])
def test_training_changes_what_is_not_frozen_and_nothing_else(stages):
    network = probe(trained_stages=stages).train()
    before = copy.deepcopy(network)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    F.cross_entropy(network(IMAGES), LABELS[:6]).backward()
    optimizer.step()
    frozen = before.encoder.state_dict()
    assert all(torch.equal(v, frozen[k]) for k, v in network.encoder.state_dict().items())
    changed = {k.split(".")[0] for k, v in network.state_dict().items()
               if not torch.equal(v, before.state_dict()[k])}  # fmt: skip
    assert changed == ({"head", "stages"} if stages else {"head"})


def test_a_checkpoint_holds_no_encoder_and_fits_no_other():
    network = LearnableWeightScaling(probe(), num_classes=3)
    state = network.state_dict()
    assert {key.removeprefix("network.") for key in state} == {
        "scale", "digest", "head.linear.weight", "head.linear.bias",
    }  # fmt: skip
    same = LearnableWeightScaling(probe(), num_classes=3)
    torch.nn.init.zeros_(same.network.head.linear.weight)
    same.load_state_dict(state)
    assert torch.equal(same.eval()(IMAGES), network.eval()(IMAGES))
    other = LearnableWeightScaling(probe(seed=1), num_classes=3)
    with pytest.raises(ModelError, match="weights of the encoder are not those"):
        other.load_state_dict(state)


def test_the_key_of_an_encoder_is_of_its_weights_and_layers():
    keys = [probe(), probe(), probe(seed=1), probe(trained_stages=1), probe(trained_stages=2)]
    assert len({network.encoder_key for network in keys}) == 4
    assert keys[0].encoder_key == keys[1].encoder_key


def test_a_probe_has_attention_maps():
    network = probe(head=MLPHead).eval()
    logits, maps = attention_maps(network, IMAGES)
    assert torch.equal(logits, network(IMAGES))
    assert maps["Grad-CAM"].shape == (6, 1, 1)


def test_cosine_head_is_the_scaled_cosine():
    head = CosineHead(5, 3, scale=7.0)
    expected = torch.stack(
        [torch.stack([7 * v @ w / (v.norm() * w.norm()) for w in head.weight]) for v in VECTORS]
    )
    torch.testing.assert_close(head(VECTORS), expected)
    torch.testing.assert_close(head(3 * VECTORS), expected)


def test_nearest_class_mean_is_the_loop_over_classes():
    head = NearestClassMean(5, 3, temperature=0.5)
    for part in torch.arange(30).split(7):
        head.gather(VECTORS[part], LABELS[part])
    for vector, logits in zip(VECTORS, head(VECTORS), strict=True):
        for c in range(3):
            mean = sum(v / v.norm() for v in VECTORS[c::3]) / 10
            cosine = vector @ mean / (vector.norm() * mean.norm())
            torch.testing.assert_close(logits[c], cosine / 0.5)


def test_nearest_neighbors_vote_as_in_a_loop():
    head = KNearestNeighbors(5, 3, k=4, temperature=0.1)
    for part in torch.arange(30).split(7):
        head.gather(VECTORS[part], LABELS[part])
    queries = torch.randn(8, 5, generator=torch.Generator().manual_seed(2))
    for query, probability in zip(queries, head(queries).softmax(1), strict=True):
        cosines = [float(query @ v / (query.norm() * v.norm())) for v in VECTORS]
        votes = torch.zeros(3)
        for i in sorted(range(30), key=lambda i: -cosines[i])[:4]:
            votes[LABELS[i]] += torch.tensor(cosines[i] / 0.1).exp()
        torch.testing.assert_close(probability, votes / votes.sum(), atol=5e-3, rtol=0)  # halves


def test_neighbors_are_saved_and_forgotten():
    head = KNearestNeighbors(5, 3)
    assert head(VECTORS).isfinite().all()  # a sanity check comes before all images
    head.gather(VECTORS, LABELS)
    loaded = KNearestNeighbors(5, 3)
    loaded.load_state_dict(head.state_dict())
    assert torch.equal(loaded(VECTORS), head(VECTORS))
    head.reset()
    assert len(head.bank) == len(head.labels) == 0


def test_only_gathering_heads_are_computed_in_one_pass():
    with pytest.raises(ModelError, match="LinearHead is trained by gradients"):
        OnePassClassifier(probe(), optimizer=torch.optim.SGD)
