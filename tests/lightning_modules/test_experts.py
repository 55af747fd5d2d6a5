"""Experts on one trunk: losses against the papers in loops, networks and training."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from callbacks.looking.network_attention import attention_maps
from lightning_modules import Experts, ModelError
from lightning_modules.losses import BalPoELoss, CrossEntropyLoss, LogitAdjustedLoss, SADELoss
from lightning_modules.mixes import Mixup
from lightning_modules.networks import (
    CosineHead,
    ExpertHeads,
    ExpertNetwork,
    LinearHead,
    MLPHead,
    Probe,
    TimmNetwork,
)

COUNTS = (1113, 6705, 514, 327, 1099, 115, 142)
K = len(COUNTS)
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(3, 12, K, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.arange(12) % K
SOFT = F.one_hot(LABELS, K).double().lerp(F.one_hot(LABELS.flip(0), K).double(), 0.3)
IMAGES = torch.rand(6, 3, 32, 32, generator=GENERATOR)


def cross_entropy(adjusted: torch.Tensor) -> float:
    """Mean of -log(exp z_y / sum_c exp z_c) over the samples, in a loop."""
    losses = [
        math.log(sum(math.exp(z - row[label]) for z in row))
        for row, label in zip(adjusted.tolist(), LABELS.tolist(), strict=True)
    ]
    return sum(losses) / len(losses)


def test_sade_is_the_sum_of_softmax_balanced_and_inverse_softmax():
    prior = [n / sum(COUNTS) for n in COUNTS]
    ascending = sorted(prior)
    backward = [ascending[K - 1 - ascending.index(p)] for p in prior]
    assert backward[1] == min(prior)
    assert backward[5] == max(prior)
    log, inverse = (torch.tensor(p, dtype=torch.float64).log() for p in (prior, backward))
    expected = cross_entropy(LOGITS[0]) + cross_entropy(LOGITS[1] + log)
    expected += cross_entropy(LOGITS[2] + log - 1.5 * inverse)
    assert SADELoss(COUNTS, backward=1.5)(LOGITS, LABELS).item() == pytest.approx(expected, 1e-6)


def test_balpoe_is_the_mean_of_logit_adjusted_losses():
    log = torch.tensor(COUNTS, dtype=torch.float64).div(sum(COUNTS)).log()
    taus = (0.5, 1, 1.5)
    expected = sum(cross_entropy(z + t * log) for z, t in zip(LOGITS, taus, strict=True)) / 3
    assert BalPoELoss(COUNTS, taus)(LOGITS, LABELS).item() == pytest.approx(expected, 1e-6)


@pytest.mark.parametrize("target", [LABELS, SOFT], ids=["hard", "soft"])
def test_experts_have_losses_of_the_project(target):
    adjusted = [LogitAdjustedLoss(COUNTS, tau=tau)(LOGITS[e], target) for e, tau in enumerate(
        (0, 1, 2))]  # fmt: skip
    torch.testing.assert_close(BalPoELoss(COUNTS)(LOGITS, target), sum(adjusted) / 3)
    backward = SADELoss(COUNTS, backward=0)(LOGITS, target)
    uniform = LogitAdjustedLoss(COUNTS)(LOGITS[2], target)
    torch.testing.assert_close(backward, adjusted[0] + adjusted[1] + uniform)
    same = BalPoELoss(COUNTS, [1])(LOGITS[:1], target)
    torch.testing.assert_close(same, LogitAdjustedLoss(COUNTS)(LOGITS[0], target))


def test_equal_counts_give_cross_entropy():
    plain = torch.stack([CrossEntropyLoss()(z, LABELS) for z in LOGITS])
    torch.testing.assert_close(SADELoss([9] * K)(LOGITS, LABELS), plain.sum())
    torch.testing.assert_close(BalPoELoss([9] * K)(LOGITS, LABELS), plain.mean())


@pytest.mark.parametrize("loss", [SADELoss(COUNTS), BalPoELoss(COUNTS)], ids=["sade", "balpoe"])
def test_losses_are_finite_in_half_precision_and_not_saved(loss):
    logits = (1e4 * LOGITS.sign()).half().requires_grad_()
    value = loss(logits, LABELS)
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    assert not loss.state_dict()


def test_losses_refuse_other_numbers_of_experts():
    with pytest.raises(ModelError, match="head.number to 3"):
        SADELoss(COUNTS)(LOGITS[:2], LABELS)


def heads(width: int, classes: int, head=None) -> ExpertHeads:
    return ExpertHeads(width, classes, number=3, head=head)


def network(name: str, own_stages: int) -> ExpertNetwork:
    torch.manual_seed(0)
    return ExpertNetwork(TimmNetwork(name, pretrained=False), heads, own_stages, num_classes=K)


def test_prediction_is_the_weighted_sum_and_at_first_the_mean():
    experts = heads(5, K, MLPHead)
    vectors = torch.rand(4, 5)
    logits = experts.experts(vectors)
    assert logits.shape == (3, 4, K)
    torch.testing.assert_close(experts(vectors), sum(h(vectors) for h in experts.heads) / 3)
    experts.weigh(torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(experts(vectors), (logits[0] + logits[1]) / 2)
    assert "weight" not in experts.state_dict()


def test_each_expert_may_have_vectors_of_its_own():
    experts = heads(5, K, CosineHead)
    vectors = torch.rand(3, 4, 5)
    own = [head(v) for head, v in zip(experts.heads, vectors, strict=True)]
    torch.testing.assert_close(experts.experts(vectors), torch.stack(own))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
@pytest.mark.parametrize("stages", [0, 1, 2])
def test_stages_of_the_experts_start_as_those_of_the_encoder(name, stages):
    torch.manual_seed(0)
    encoder = TimmNetwork(name, pretrained=False).eval()
    expected = encoder.encode(IMAGES)
    experts = ExpertNetwork(copy.deepcopy(encoder), heads, stages, num_classes=K).eval()
    vectors = experts.vectors(IMAGES)
    assert vectors.shape == ((3,) if stages else ()) + expected.shape
    torch.testing.assert_close(vectors, expected.expand_as(vectors))
    assert len(experts.stages) == (3 if stages else 0)
    assert len({id(p) for p in experts.stages.parameters()}) == len([*experts.stages.parameters()])


def test_experts_train_apart_and_the_trunk_by_all():
    experts = network("test_resnet", own_stages=1)
    logits = experts.head.experts(experts.vectors(IMAGES))
    logits[1].sum().backward()
    trained = {
        name for name, p in experts.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert {n.split(".")[1] for n in trained if n.startswith("stages")} == {"1"}
    assert any(name.startswith("encoder.model.conv1") for name in trained)
    assert {name for name in trained if name.startswith("head")} == {
        "head.heads.1.linear.weight", "head.heads.1.linear.bias",
    }  # fmt: skip


def test_too_many_stages_and_single_heads_are_refused():
    with pytest.raises(ModelError, match="own_stages=4 .* set 0 to 3"):
        network("test_resnet", own_stages=4)
    with pytest.raises(ModelError, match="has no stages"):
        network("test_vit", own_stages=1)
    with pytest.raises(ModelError, match="at least 1"):
        ExpertHeads(5, K, number=0)
    probe = Probe(TimmNetwork("test_resnet", pretrained=False), LinearHead, num_classes=K)
    with pytest.raises(ModelError, match="LinearHead is a single classifier"):
        Experts(probe, SADELoss(COUNTS), optimizer=None)


@pytest.mark.parametrize("mix", [None, Mixup(alpha=0.4)], ids=["plain", "mixup"])
@pytest.mark.parametrize("kind", [Probe, ExpertNetwork])
def test_training_step_is_the_loss_of_the_experts(kind, mix):
    torch.manual_seed(0)
    experts = kind(TimmNetwork("test_resnet", pretrained=False), heads, num_classes=K)
    module = Experts(experts, BalPoELoss(COUNTS), optimizer=None, mix=mix).eval()
    module.log = lambda *_: None
    batch = {"image": IMAGES, "label": LABELS[:6]}
    torch.manual_seed(1)
    loss = module.training_step(batch, 0)
    torch.manual_seed(1)
    mixed = module.mix(batch)
    vectors = experts.vectors(mixed["image"])
    logits = torch.stack([head(vectors) for head in experts.head.heads])
    torch.testing.assert_close(loss, BalPoELoss(COUNTS)(logits, mixed["label"]))
    torch.testing.assert_close(module(mixed["image"]), logits.mean(0))


def test_experts_have_attention_maps():
    experts = network("test_resnet", own_stages=1).eval()
    logits, maps = attention_maps(experts, IMAGES)
    torch.testing.assert_close(logits, experts(IMAGES))
    assert maps["Grad-CAM"].shape[0] == 6
    assert maps["Grad-CAM"].any()
