"""Projectors with batch norm and predictors behind them, against modules written out by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from contrastive_methods import COUNTS, Encoder, Step, batch, in_float64, make, sgd, train
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_modules import ContrastiveClassifier, ModelError
from lightning_modules.losses import PaCoLoss
from lightning_modules.networks import ContrastiveNetwork
from tests.processes import in_two

SPMIX_CODE = {"hidden": 24, "layers": 3, "norm": "all", "predictor_layers": 2}


def network(batch_norm=True, **options):
    torch.manual_seed(0)
    return ContrastiveNetwork(Encoder(batch_norm), embedding=16, **options)


def module(own, momentum=None, key_logits="own"):
    options = {"queue_size": 24, "momentum": momentum, "key_logits": key_logits}
    found = ContrastiveClassifier(own, PaCoLoss(COUNTS), optimizer=sgd, **options)
    found.log = lambda *_: None
    return found.train()


def test_names_of_parameters_without_the_options():
    """Checkpoints from before these options can still be loaded."""
    names = {n for n in network(layers=3).state_dict() if not n.startswith("encoder.")}
    layers = ("classifier", "projector.0", "projector.2", "projector.4")
    assert names == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


@pytest.mark.usefixtures("float64")
def test_projector_of_paco():
    """A projector: linear, batch norm, ReLU, linear."""
    own, features = network(norm="hidden").double(), torch.randn(8, 32, dtype=torch.float64)
    state = own.projector.state_dict()
    assert {name for name in state if "running" not in name and "num" not in name} == {
        *("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias")
    }
    hidden = F.linear(features, state["0.weight"], state["0.bias"])
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    expected = F.linear(hidden.relu(), state["3.weight"], state["3.bias"])
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(own.project(features), expected)
    assert torch.equal(own.eval().predict(features), own.project(features))


class Published(nn.Module):
    """The model of SPMix's published code, written anew: one network and the loss of GPaCo."""

    def __init__(self, encoder, classifier):
        super().__init__()
        self.encoder, self.linear = encoder, classifier
        self.projector = nn.Sequential(
            nn.Linear(32, 24, bias=False),
            nn.BatchNorm1d(24),
            nn.ReLU(),
            nn.Linear(24, 24, bias=False),
            nn.BatchNorm1d(24),
            nn.ReLU(),
            nn.Linear(24, 16, bias=False),
            nn.BatchNorm1d(16, affine=False),
        )
        self.predictor = nn.Sequential(
            nn.Linear(16, 24, bias=False),
            nn.BatchNorm1d(24),
            nn.ReLU(),
            nn.Linear(24, 16, bias=False),
            nn.BatchNorm1d(16, affine=False),
        )
        self.queue, self.queued = [], []

    def loss(self, first, second, label):
        features = self.encoder.encode(first)
        q = F.normalize(self.predictor(self.projector(features)), dim=1)
        k = F.normalize(self.projector(self.encoder.encode(second)), dim=1)
        keys = torch.cat([q, k, *self.queue])
        key_label = torch.cat([label, label, *self.queued])
        logits = self.linear(features).repeat(2, 1)
        self.queue.append(k.detach())
        self.queued.append(label)
        return gpaco(keys, key_label, logits)


def gpaco(keys, key_label, logits, alpha=0.05, temperature=0.2):
    centres = logits + (torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)).log()
    losses = []
    for i in range(len(logits)):
        others = [j for j in range(len(keys)) if j != i]
        row = torch.cat([centres[i], keys[others] @ keys[i] / temperature])
        positive = (key_label[others] == key_label[i]).double()
        weight = torch.cat([torch.eye(7).double()[key_label[i]], alpha * positive])
        losses.append(-(weight * row.log_softmax(0)).sum() / weight.sum())
    return torch.stack(losses).mean()


@pytest.mark.usefixtures("float64")
def test_training_equals_the_published_module():
    """Losses, weights and running statistics of two steps, the second with a queue."""
    own = module(network(**SPMIX_CODE), key_logits="query").double()
    theirs = Published(copy.deepcopy(own.network.encoder), copy.deepcopy(own.network.classifier))
    theirs.double()
    theirs.projector.load_state_dict(own.network.projector.state_dict())
    theirs.predictor.load_state_dict(own.network.predictor.state_dict())
    optimizer = sgd(theirs.parameters())
    batches = [in_float64(batch("gpaco", seed)) for seed in range(2)]
    for each, loss in zip(batches, train(own, Step(own), batches), strict=True):
        expected = theirs.loss(*each["image"].chunk(2), each["label"].chunk(2)[0])
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        assert loss == pytest.approx(expected.item(), rel=1e-9)
    for name in ("encoder", "projector", "predictor"):
        state = getattr(own.network, name).state_dict()
        for key, value in getattr(theirs, name).state_dict().items():
            torch.testing.assert_close(state[key], value)
    torch.testing.assert_close(own.network.classifier.weight, theirs.linear.weight)


def test_logits_of_the_second_views():
    """If second views reuse the first ones' logits, no gradient reaches the second images."""
    each = batch("gpaco")
    first, second = ({k: v.chunk(2)[i] for k, v in each.items()} for i in range(2))
    for kind in ("own", "query"):
        logits = module(network(), key_logits=kind).compare(first, second)[0].logits
        assert torch.equal(logits[:8], logits[8:]) == (kind == "query")
        assert len(logits) == 16
    with pytest.raises(ModelError, match="momentum to null"):
        module(network(), momentum=0.9, key_logits="query")


def test_predictor_is_of_the_queries_alone():
    each = batch("gpaco")
    first, second = ({k: v.chunk(2)[i] for k, v in each.items()} for i in range(2))
    own = module(network(norm="all", predictor_layers=2))
    contrast, keys = own.compare(first, second)
    last = own.network.predictor[-2].weight
    assert torch.autograd.grad(contrast.keys[:8, 0].sum(), last, retain_graph=True)[0].any()
    (of_keys,) = torch.autograd.grad(keys[:, 0].sum(), last, allow_unused=True)
    assert of_keys is None


def test_key_network_has_no_predictor_and_follows_the_rest():
    own = make("predicting")
    queries, keys = (dict(n.named_parameters()) for n in (own.network, own.key_network))
    assert queries.keys() - keys.keys() == {
        *("predictor.0.weight", "predictor.0.bias", "predictor.2.weight", "predictor.2.bias")
    }
    for parameter in own.network.parameters():
        parameter.data.add_(1)
    own.setup("fit")
    assert all(torch.equal(value, queries[name]) for name, value in keys.items())
    before = {name: value.clone() for name, value in keys.items()}
    for parameter in own.network.parameters():
        parameter.data.add_(1)
    own.configure_optimizers().step()  # without gradients nothing moves but the key network
    for name, value in keys.items():
        torch.testing.assert_close(value, before[name] + 0.1)


def one_of_two(rank):
    """Train with batch norm in projector and predictor, with and without a key network."""
    found = {}
    for momentum in (0.9, None):
        own = module(network(**SPMIX_CODE), momentum)
        step = DistributedDataParallel(Step(own))
        batches = [batch("gpaco", seed=10 * rank + seed) for seed in range(3)]
        train(own, step, batches)
        found[momentum] = {n: p.detach() for n, p in own.named_parameters()}
    return found


def test_two_processes_keep_the_same_weights():
    """Data-parallel training needs every gradient in each process, whatever its batch."""
    first, second = in_two(one_of_two)
    for momentum, state in first.items():
        assert all(torch.equal(value, second[momentum][name]) for name, value in state.items())


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_steps_in_half_precision(half):
    own = module(network(**SPMIX_CODE), key_logits="query")
    batches = [batch("gpaco", seed % 5, size=4) for seed in range(50)]
    losses = train(own, Step(own), batches, half)
    assert torch.tensor(losses).isfinite().all()
    assert all(v.isfinite().all() for v in own.state_dict().values())
