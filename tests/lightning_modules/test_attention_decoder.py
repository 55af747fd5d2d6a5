import pytest
import timm
import torch
from torch import nn

from datamodules.classes import HAM10000_CLASSES
from lightning_modules.networks.attention_decoder import AttentionDecoder, StateAttention
from lightning_modules.taxonomy import Taxonomy

TREE = HAM10000_CLASSES.taxonomy

NAMES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
IMAGES = torch.rand(5, 3, 64, 64)
DECISIONS = ("greedy", "paths")


def decoder(**options):
    torch.manual_seed(0)
    return AttentionDecoder(
        "test_resnet", NAMES, TREE, **({"hidden": 16, "embed_dim": 6} | options), pretrained=False
    )


def decisive(network, factor: float = 30.0):
    """Make the scores differ clearly, as after training."""
    with torch.no_grad():
        network.vocabulary.weight *= factor
    return network


def attention(**options):
    torch.manual_seed(0)
    return StateAttention(24, 10, **options).eval()


def test_attention_is_a_share_and_channels_are_gated():
    attend, features, state = attention(), torch.randn(3, 9, 24).relu(), torch.randn(3, 10)
    beta = attend.channel(features, state)
    context, alpha = attend(features, state)
    assert beta.shape == (3, 24)
    assert ((beta > 0) & (beta < 1)).all()
    assert torch.allclose(alpha.sum(1), torch.ones(3))
    assert torch.allclose(context, (alpha[..., None] * features * beta[:, None]).sum(1))


def test_attention_that_does_not_hear_the_state():
    attend, features = attention(), torch.randn(3, 9, 24)
    one, other = torch.randn(2, 3, 10)
    assert not torch.allclose(attend(features, one)[1], attend(features, other)[1])
    nn.init.zeros_(attend.w1.weight)
    nn.init.zeros_(attend.w3.weight)
    for a, b in zip(attend(features, one), attend(features, other), strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("float64")
def test_attention_without_scores_is_a_mean():
    attend, features = attention().double(), torch.randn(3, 9, 24).double()
    for layer in (attend.v, attend.w2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    context, _ = attend(features, torch.randn(3, 10).double())
    torch.testing.assert_close(context, features.mean(1) / 2)


def naive(network, features, path):
    """One sample's logits (T, N), position by position and gate by gate."""
    attend, (d, h, w) = network.attend, features.shape
    positions = [features[:, i, j] for i in range(h) for j in range(w)]
    mean, largest = sum(positions) / (h * w), torch.stack(positions).max(0).values
    initial = (network.initial.weight @ mean + network.initial.bias).tanh()
    cell, hidden = initial.chunk(2)
    word, logits = torch.zeros(network.embedding.embedding_dim).double(), []
    for node in path:
        s = torch.cat([cell, hidden])
        summed = attend.w0(mean).relu() + attend.w0(largest).relu()
        beta = torch.sigmoid(attend.w2(torch.tanh(summed + attend.w1(s))))
        scaled = [x * beta for x in positions]
        scores = [attend.v(torch.tanh(x + attend.w3(s))).exp() for x in scaled]
        context = sum(e * x for e, x in zip(scores, scaled, strict=True)) / sum(scores)
        lstm, inputs = network.lstm, torch.cat([context, word])
        gates = lstm.weight_ih @ inputs + lstm.bias_ih + lstm.weight_hh @ hidden + lstm.bias_hh
        i, f, g, o = gates.chunk(4)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        logits.append(network.vocabulary(torch.cat([cell, hidden])))
        word = network.embedding.weight[node]
    assert d == len(context)
    return torch.stack(logits)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("depth", [2, 3])
def test_teacher_forced_decoding_is_the_papers(depth):
    network = decoder(depth=depth).double().eval()
    features = torch.randn(7, 96, 2, 3).double()
    paths = network.taxonomy.paths
    expected = torch.stack([naive(network, f, p) for f, p in zip(features, paths, strict=True)])
    torch.testing.assert_close(network.decode(features, paths), expected)


@pytest.mark.parametrize("level_masked", [False, True])
def test_decoding_follows_its_own_most_probable_nodes(level_masked):
    network = decisive(decoder(depth=3, level_masked=level_masked)).eval()
    features = network.features(IMAGES)
    free = network.decode(features)
    assert torch.equal(free, network.decode(features, free.argmax(-1)))


def test_masked_levels_choose_among_their_own_nodes():
    network = decisive(decoder(depth=3, level_masked=True)).eval()
    logits = network.decode(network.features(IMAGES))
    own = torch.stack([logits[:, t, at].softmax(-1).sum(-1) for t, at in enumerate(SLICES)])
    assert torch.allclose(own, torch.ones_like(own))
    share = logits.softmax(-1)
    assert all((share[:, t, at].sum(-1) > 0.999).all() for t, at in enumerate(SLICES))


SLICES = Taxonomy(NAMES, TREE, 3).slices


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_only_diagnoses_are_decided_and_every_one_can_be(depth, decision):
    network = decoder(depth=depth, decision=decision).eval()
    with torch.no_grad():
        network.vocabulary.bias[: -len(NAMES)] += 100  # inner nodes are by far the most probable
    levels = network.levels(IMAGES)
    assert torch.equal(network(IMAGES), levels[-1])
    assert levels[-1].shape == (5, 7)
    assert levels[-1].isfinite().all()
    assert [x.shape[1] for x in levels] == [len(names) for names in network.taxonomy.levels]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_probabilities_of_paths_sum_to_1(depth):
    network = decisive(decoder(depth=depth, decision="paths")).eval()
    levels = network.levels(IMAGES)
    for log_probability in levels:
        assert torch.allclose(log_probability.exp().sum(1), torch.ones(5), atol=1e-5)
    leaves = levels[-1].exp()
    for level, inner in enumerate(levels):  # and inner nodes have the sum of what is below
        assert torch.allclose(network.taxonomy.at_level(leaves, level), inner.exp(), atol=1e-5)


@pytest.mark.parametrize("depth", [2, 3])
def test_probability_of_a_path_is_the_product_under_teacher_forcing(depth):
    network = decisive(decoder(depth=depth, decision="paths")).eval()
    taxonomy, features = network.taxonomy, network.features(IMAGES)
    scored = network.score_paths(features)[-1]
    for label, path in enumerate(taxonomy.paths):
        logits = network.decode(features, path.expand(len(IMAGES), -1))
        product = torch.ones(len(IMAGES))
        for level, node in enumerate(path):
            siblings = taxonomy.parents == taxonomy.parents[node]
            below = logits[:, level].masked_fill(~siblings, -torch.inf).softmax(1)
            product *= below[:, node]
        assert torch.allclose(scored[:, label].exp(), product, atol=1e-5)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("decision", DECISIONS)
def test_attention_is_kept_when_asked_for(decision, size):
    network = decoder(depth=3, decision=decision).eval()
    images = torch.rand(2, 3, size, size)
    network(images)
    assert not network.attention
    network.keep_attention = True
    network(images)
    assert list(network.attention) == ["level1", "level2", "level3"]
    for maps in network.attention.values():
        assert maps.shape == (2, size // 32, size // 32)
        assert torch.allclose(maps.sum((1, 2)), torch.ones(2))
        assert not maps.requires_grad


def test_dropout_of_the_input_is_one_mask_for_a_sequence():
    network, masks = decoder(depth=3).train(), []
    network.lstm.register_forward_pre_hook(lambda _, args: masks.append(args[0] == 0))
    network.decode(torch.rand(4, 96, 2, 2), torch.tensor([[0, 2, 7]]).expand(4, -1))
    context = torch.stack(masks)[:, :, :96]  # the word of the first step is 0 by itself
    assert (context == context[0]).all()
    assert 0.3 < context.float().mean() < 0.7
    assert not torch.equal(context[0, 0], context[0, 1])


@pytest.mark.parametrize("decision", DECISIONS)
def test_gradients_reach_every_parameter(decision):
    network = decoder(depth=3, decision=decision)
    if decision == "paths":
        network.levels(IMAGES)[-1][:, 0].sum().backward()
    else:
        path = network.taxonomy.paths[torch.arange(5)]
        network.decode(network.features(IMAGES), path).logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert network.model.conv1[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("decision", DECISIONS)
def test_half_precision_is_finite(decision):
    network = decoder(decision=decision)
    with torch.autocast("cpu", torch.bfloat16):
        features = network.features(IMAGES)
        logits = network.decode(features, network.taxonomy.paths[torch.arange(5)])
        scored = network(IMAGES)
    assert logits.dtype == torch.float
    assert logits.isfinite().all()
    assert scored.isfinite().all()
    (logits.sum() + scored.sum()).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_vgg_keeps_its_last_map_before_the_pool(monkeypatch):
    create = timm.create_model

    def tiny(name, pretrained=False, **options):
        return create("vgg11", pretrained=False, mlp_ratio=0.01, **options)

    monkeypatch.setattr(timm, "create_model", tiny)
    network = decoder().eval()
    assert network.features(torch.rand(1, 3, 75, 75)).shape == (1, 512, 4, 4)
    assert network(torch.rand(1, 3, 75, 75)).shape == (1, 7)
