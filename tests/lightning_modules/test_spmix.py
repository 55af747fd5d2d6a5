"""SPMix: its objective, agreement with other methods, and exact resumption."""

import pytest
import torch
from contrastive_methods import Step, in_float64, train, without_syncing_buffers
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_modules import ContrastiveClassifier, ModelError, SPMix
from lightning_modules.batches import views
from lightning_modules.losses import PaCoLoss, SupConLoss
from lightning_modules.mixes import PairMixup, PatchMix, RandomPatchMix, SaliencyMixup
from lightning_modules.networks import ContrastiveNetwork, HybridViT
from tests.processes import in_two

COUNTS = [60, 600, 6]
NAMES = ("mel", "nv", "bcc")
PAPER = {"momentum": 0.9, "criterion": "cross-entropy", "contrastive": "SupCon"}
CODE = {"momentum": None, "criterion": None, "contrastive": "GPaCo"}


def module(kind=SPMix, method=PAPER, mix=None, cnn=None, queue_size=8, size=32, depth=6, **options):
    torch.manual_seed(0)
    # Without a CNN there is no batch norm, which would make anchors depend on their partners.
    encoder = HybridViT("test_vit", pretrained=False, cnn=cnn, size=size, options={"depth": depth})
    contrastive = {"SupCon": SupConLoss(0.2), "GPaCo": PaCoLoss(COUNTS)}[method["contrastive"]]
    found = kind(
        network=ContrastiveNetwork(encoder, num_classes=3, embedding=16),
        contrastive=contrastive,
        criterion=nn.CrossEntropyLoss() if method["criterion"] else None,
        momentum=method["momentum"],
        queue_size=queue_size,
        optimizer=torch.optim.AdamW,
        class_names=NAMES,
        **({"mix": mix or PatchMix(noise=0.0)} if kind is SPMix else {}),
        **options,
    )
    found.log = lambda *_, **__: None
    return found.train()


def batch(pairs=6, size=32, number=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    rows = 2 * pairs
    label = torch.tensor([0, 1, 2, 1, 2, 0]).repeat(pairs)[:rows]
    return {
        "image": torch.rand(number * rows, 3, size, size, generator=generator),
        "saliency": torch.rand(number * rows, 1, size, size, generator=generator),
        "label": label.repeat(number),
        "index": torch.arange(rows).repeat(number),
    }


def anchors_of(both):
    """The batch for a method without mixing: two views of the anchors, no partners."""
    return {name: value[::2] for name, value in both.items()}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", [PAPER, CODE], ids=["paper", "code"])
@pytest.mark.parametrize(
    "unmixed",
    [
        *(kind(floor=1.0, clip=1.0) for kind in (PatchMix, RandomPatchMix)),
        *(kind(floor=1.0, clip=1.0) for kind in (SaliencyMixup, PairMixup)),
        PatchMix(probability=0.0),
    ],
    ids=lambda mix: f"{type(mix).__name__}-{mix.probability}",
)
def test_ratio_one_is_the_method_without_mixing(unmixed, method):
    mixing, plain = module(mix=unmixed, method=method), module(ContrastiveClassifier, method)
    mixing, plain, both = mixing.double(), plain.double(), in_float64(batch())
    for step in range(2):  # the second with a queue
        losses = [
            mixing.training_step(both, step),
            plain.training_step(anchors_of(both), step),
        ]
        torch.testing.assert_close(*losses, rtol=1e-9, atol=0)
    for loss in losses:
        loss.backward()
    state, expected = mixing.state_dict(), plain.state_dict()
    torch.testing.assert_close(state["queue.embedding"], expected["queue.embedding"])
    assert torch.equal(state["queue.label"], expected["queue.label"])
    gradients = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert gradients
    for name, parameter in mixing.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name])


@pytest.mark.parametrize("method", [PAPER, CODE], ids=["paper", "code"])
def test_mixing_changes_the_loss_and_the_labels_are_the_anchors(method):
    mixing, plain = module(method=method), module(ContrastiveClassifier, method)
    both = batch()
    assert mixing.training_step(both, 0) != plain.training_step(anchors_of(both), 0)
    assert mixing.queue.label[:6].tolist() == both["label"][:12:2].tolist()


def test_key_network_mixes_tokens_of_its_own():
    mixing = module()
    with torch.no_grad():
        for parameter in mixing.key_network.parameters():
            parameter.zero_()
    seen = []
    for network in (mixing.network, mixing.key_network):
        seen.append(mixing.encode(network, of_all(mixing, first_view(batch()))))
    assert seen[0].abs().sum() > 0
    assert seen[1].abs().sum() == 0
    assert not any(p.requires_grad for p in mixing.key_network.parameters())


@pytest.mark.parametrize("method", [PAPER, CODE], ids=["paper", "code"])
def test_all_that_trains_has_a_gradient(method):
    """Data-parallel training would wait forever for a missing gradient."""
    mixing = module(method=method, cnn="test_resnet")
    mixing.training_step(batch(), 0).backward()
    without = [n for n, p in mixing.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_images_are_judged_as_they_are():
    mixing = module().eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(mixing(images), mixing.network(images))


def test_mixtures_are_what_the_step_mixes():
    mixing, both = module(), batch()
    found = mixing.mixtures(both)
    assert found["image"].shape == (12, 3, 32, 32)
    assert torch.equal(found["map"], first_view(both)["saliency"])
    assert torch.equal(found["ratio"], of_all(mixing, first_view(both))["ratio"])


def test_a_pair_is_mixed_in_both_views_or_in_none():
    mixing = module(mix=PatchMix(probability=0.5))
    seen = record_encoded(mixing)
    torch.manual_seed(3)
    mixing.training_step(batch(pairs=40), 0)
    first, second = ((view["ratio"] < 1).any((1, 2)) for view in seen)
    assert torch.equal(first, second)
    assert 0 < first.sum() < 40


def test_the_second_view_alone_can_be_mixed():
    mixing = module(mixed_views="second")
    seen = record_encoded(mixing)
    mixing.training_step(batch(), 0)
    assert (seen[0]["ratio"] == 1).all()
    assert (seen[1]["ratio"] < 1).any((1, 2)).all()


def record_encoded(mixing):
    """Record the encoded views in order."""
    seen, encode = [], mixing.encode

    def noted(network, view):
        seen.append(view)
        return encode(network, view)

    mixing.encode = noted
    return seen


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", [PAPER, CODE], ids=["paper", "code"])
def test_clean_anchors_can_train_the_classifier(method):
    mixing, both = module(method=method, classify="clean").double(), in_float64(batch())
    contrast, _ = mixing.compare(*views(both, 2, check=True))
    images = torch.cat([view["image"][::2] for view in views(both, 2, check=True)])
    expected = mixing.network(images if method is CODE else images[:6])
    torch.testing.assert_close(contrast.logits, expected)
    plain, _ = module(method=method).double().compare(*views(both, 2, check=True))
    torch.testing.assert_close(contrast.anchors, plain.anchors)
    assert not torch.allclose(contrast.logits, plain.logits)


def test_soft_labels_have_the_mean_ratio():
    mixing, both = module(soft_label=True), batch()
    first, second = views(both, 2, check=True)
    contrast, _ = mixing.compare(first, second)
    ratio = of_all(mixing, first)["ratio"]
    for i in range(6):
        expected = torch.zeros(3)
        expected[first["label"][2 * i]] += ratio[i].mean()
        expected[first["label"][2 * i + 1]] += 1 - ratio[i].mean()
        torch.testing.assert_close(contrast.target[i], expected)
    assert torch.equal(contrast.label, first["label"][::2])  # positives are of the anchor's class
    for wrong in ({"method": CODE}, {"classify": "clean"}):
        with pytest.raises(ModelError, match="soft_label needs a criterion"):
            module(soft_label=True, **wrong)


def test_pairs_are_mixed_to_be_looked_at_as_in_training():
    mixing = module().eval()
    pairs = first_view(batch())
    logits, label = mixing.mixed(pairs)
    mixes = mixing.mix.encode(mixing.network.encoder, of_all(mixing, pairs))
    torch.testing.assert_close(logits, mixing.network.classify(mixes))
    assert torch.equal(label, pairs["label"][::2])


def first_view(both):
    return views(both, 2, check=True)[0]


def of_all(mixing, view):
    """A view with the ratio of all of its pairs."""
    return mixing.with_ratio(view, torch.ones(len(view["label"]) // 2, dtype=torch.bool))


def test_pairs_need_an_even_number_of_images():
    odd = {name: value[[0, 1, 2, 12, 13, 14]] for name, value in batch().items()}
    for used in (lambda mixing: mixing.training_step(odd, 0), lambda mixing: mixing.mixtures(odd)):
        with pytest.raises(ModelError, match="data.batch_size a multiple of twice"):
            used(module())


@pytest.mark.parametrize("method", [PAPER, CODE], ids=["paper", "code"])
@pytest.mark.parametrize(
    ("network", "half", "steps"),
    [
        ({"depth": 1}, torch.bfloat16, 200),
        ({"depth": 1}, torch.float16, 200),
        ({"cnn": "test_resnet"}, torch.bfloat16, 20),
        ({"cnn": "test_resnet"}, torch.float16, 2),  # with convolutions that are slow on CPUs
    ],
    ids=["block-bf16", "block-fp16", "hybrid-bf16", "hybrid-fp16"],
)
def test_steps_in_half_precision(method, network, half, steps):
    mixing = module(method=method, mix=PatchMix(), **network)
    batches = [batch(pairs=2, seed=seed % 5) for seed in range(steps)]
    losses = train(mixing, Step(mixing), batches, half)
    assert torch.tensor(losses).isfinite().all()
    assert all(value.isfinite().all() for value in mixing.state_dict().values())


def share(rank, seed):
    """Half of the pairs in both views: the share of a process."""
    both = views(batch(seed=seed), 2, check=True)
    return {k: torch.cat([view[k].chunk(2)[rank] for view in both]) for k in both[0]}


def one_of_two(rank):
    """Train on this process's share of the pairs; return losses and states."""
    found = {}
    for method in ("paper", "code"):
        mixing = module(method={"paper": PAPER, "code": CODE}[method]).double()
        step = without_syncing_buffers(DistributedDataParallel(Step(mixing)))
        losses = train(mixing, step, [in_float64(share(rank, seed)) for seed in range(4)])
        found[method] = {"losses": losses, "state": mixing.state_dict()}
    return found


@pytest.mark.usefixtures("float64")
def test_two_processes_train_as_one():
    first, second = in_two(one_of_two)
    for name, method in (("paper", PAPER), ("code", CODE)):
        mixing = module(method=method).double()
        batches = [in_float64(batch(seed=seed)) for seed in range(4)]
        losses = train(mixing, Step(mixing), batches)
        both = zip(first[name]["losses"], second[name]["losses"], strict=True)
        # Cross-entropy covers the anchors of one process, the contrastive losses those of all.
        assert [sum(pair) / 2 for pair in both] == pytest.approx(losses, rel=1e-9)
        for key, value in mixing.state_dict().items():
            assert torch.equal(first[name]["state"][key], second[name]["state"][key])
            torch.testing.assert_close(first[name]["state"][key], value, rtol=1e-9, atol=1e-9)
