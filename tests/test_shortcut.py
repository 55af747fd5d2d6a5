"""Mixing must not reveal the class: how an image is mixed is independent of its label.

The label of a mix may still depend on how much is mixed. That is so by the design of three papers,
which are listed here with what it amounts to.
"""

import inspect
import itertools
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from datamodules.samplers import Natural, Paired
from experiments.recipes import read, recipes
from lightning_modules import mixes
from lightning_modules.mixes import FillingPatchMix, PatchMix

COUNTS = [1053, 6645, 454, 267, 1039, 55, 82]  # training images of the balanced split
GRID = (8, 8)
LITERAL = {"spmix_literal"}  # has a known shortcut
MIXED = {
    name: settings for name in recipes() if "mix" in (settings := read(name))["model"]["init_args"]
}
RECIPES = {name: s for name, s in MIXED.items() if s["model"]["class_path"].endswith(".SPMix")}
SOFT = {
    str((s["model"]["init_args"]["mix"], s["data"].get("sampler"))): name
    for name, s in MIXED.items()
    if name not in RECIPES
}
NEVUS = 1
# Share of nevi in the labels of the least and of the most mixed tenth of the images.
BY_DESIGN = {"Remix": (0.69, 0.61), "CMO": (0.69, 0.45), "BalancedMixup": (0.69, 0.42)}


def choices(kind):
    """All combinations of the options of a class that choose between words."""
    hints = get_type_hints(kind.__init__)
    words = {name: get_args(hint) for name, hint in hints.items() if "Literal" in str(hint)}
    for values in itertools.product(*words.values()):
        yield dict(zip(words, values, strict=True))


def epoch(sampler, mix):
    """For all pairs of an epoch: label of the anchor, whether it is mixed, ratio, partner.

    Saliency is drawn alike for all classes, so that it cannot reveal the class itself.
    """
    sampler.place(seed=1, epoch=3)
    order = list(sampler)[: len(sampler) // 2 * 2]
    labels = torch.from_numpy(sampler.labels)[order]
    torch.manual_seed(0)
    view = {"image": torch.zeros(len(labels), 1, 8, 8), "label": labels}
    view |= {name: torch.rand(len(labels), 1, 8, 8) for name in ("saliency", "mask")}
    anchor, partner = labels.unflatten(0, (-1, 2)).unbind(1)
    ratio = mix(view, GRID, mix.choose(anchor))["ratio"].flatten(1)
    mean = ratio.mean(1).numpy()
    return {
        "label": anchor.numpy(),
        "mixed": (ratio < 1).any(1).numpy().astype(int),
        "mean ratio": np.searchsorted(np.unique(np.quantile(mean, np.arange(1, 10) / 10)), mean),
        "partner": partner.numpy(),
    }


def information(one, other):
    """Mutual information in nats, and the bound that chance exceeds once in a million epochs.

    Of n independent pairs 2 n I has a chi-squared distribution (the G-test).
    """
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)
    table = table[table.any(1)][:, table.any(0)] / len(one)
    expected = table.sum(1, keepdims=True) * table.sum(0)
    there = table > 0
    found = (table[there] * np.log(table[there] / expected[there])).sum()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return found, chi2.ppf(1 - 1e-6, freedom) / (2 * len(one)) if freedom else 1e-12


def told(sampler, mix):
    """The properties of an epoch's mixing that depend on the label."""
    shown = epoch(sampler, mix)
    label = shown.pop("label")
    found = {name: information(label, values) for name, values in shown.items()}
    return {name for name, (nats, by_chance) in found.items() if nats > by_chance}


def labels():
    return np.repeat(np.arange(len(COUNTS)), COUNTS).tolist()


def built(experiment):
    """Sampler and mix of a recipe."""
    path, options = spelled_out(experiment["model"]["init_args"]["mix"])
    kind = getattr(mixes, path.rpartition(".")[2])
    more = {"class_counts": COUNTS} if kind in (FillingPatchMix, mixes.Remix) else {}
    sampler, of_sampler = spelled_out(experiment["data"].get("sampler", "Natural"))
    sampler = Paired if sampler.endswith("Paired") else Natural
    return sampler(labels(), **of_sampler), kind(**options, **more)


def spelled_out(part):
    """Class path and options of a part; without options, it is only a path."""
    return (part, {}) if isinstance(part, str) else (part["class_path"], part.get("init_args", {}))


def test_there_are_experiments_to_look_at():
    assert {"spmix", "spmix_code", "demo"} <= RECIPES.keys()
    soft = {"vgg_mixup", "vgg_cutmix", "probe_remix", "probe_balanced_mixup", "vgg_cmo"}
    assert soft <= set(SOFT.values())


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - LITERAL))
def test_no_experiment_tells_the_class_by_mixing(name):
    assert told(*built(RECIPES[name])) == set()


def test_the_papers_words_do():
    assert told(*built(RECIPES["spmix_literal"])) == {"mixed", "mean ratio", "partner"}


def kinds(kind=PatchMix):
    yield kind
    for below in kind.__subclasses__():
        yield from kinds(below)


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind is not FillingPatchMix])
@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_no_option_of_a_mix_tells_the_class(kind, probability):
    """An option that reveals the class must be listed here."""
    for options in choices(kind):
        mix = kind(**options, probability=probability)
        assert told(Paired(labels()), mix) == set(), options


@pytest.mark.parametrize("options", list(choices(Paired)), ids=lambda o: "-".join(o.values()))
def test_partners_tell_nothing_unless_they_are_more_frequent(options):
    found = told(Paired(labels(), **options), PatchMix())
    assert found == ({"partner"} if options["partners"] == "more_frequent" else set())


def test_every_choice_is_looked_at():
    assert len(list(choices(PatchMix))) == 6
    assert len(list(choices(Paired))) == 8
    assert "probability" in inspect.signature(PatchMix).parameters


def soft_epochs(sampler, mix, size=48, epochs=4):
    """For all images of some epochs: class, weight, class of the partner, class of the mix.

    The class of the mix is drawn from its label. Channel j of image i tells whether it is image j,
    so that the mixed pixels tell the weights of all.
    """
    torch.manual_seed(0)
    rows, pixels = [], torch.eye(size)[:, :, None, None].expand(-1, -1, 8, 8)
    for number in range(epochs):
        sampler.place(seed=1, epoch=number)
        order = torch.from_numpy(sampler.labels)[list(sampler)]
        for label in order[: len(order) // size * size].split(size):
            batch = {"image": pixels, "label": label, "saliency": torch.rand(size, 1, 8, 8)}
            mixed = mix(batch)
            weights = mixed["image"].mean((2, 3))
            own = torch.arange(size)[:: size // len(weights), None]
            partner = label[weights.scatter(1, own, 0.0).argmax(1)]
            drawn = mixed["label"].multinomial(1)[:, 0]
            rows.append(
                torch.stack([label[own[:, 0]], weights.gather(1, own)[:, 0], partner, drawn])
            )
    own, weight, partner, drawn = torch.cat(rows, dim=1).numpy()
    return own.astype(int), weight, partner.astype(int), drawn.astype(int)


def tenths(values):
    return np.searchsorted(np.unique(np.quantile(values, np.arange(1, 10) / 10)), values)


@pytest.fixture(scope="module", params=sorted(SOFT.values()))
def soft(request):
    """Name of a mix with soft labels, and what it shows."""
    sampler, mix = built(MIXED[request.param])
    return type(mix).__name__, soft_epochs(sampler, mix)


def test_no_soft_mix_tells_the_class_of_an_image_by_how_it_is_mixed(soft):
    _, (own, weight, partner, _) = soft
    mixed = weight < 1 - 1e-6
    for found in (
        information(own, mixed.astype(int)),
        information(own, tenths(weight)),
        information(own[mixed], partner[mixed]),
    ):
        assert found[0] < found[1]


def test_the_label_of_a_mix_depends_on_its_weights_by_the_design_of_some_papers(soft):
    name, (_, weight, _, drawn) = soft
    amount = tenths(np.minimum(weight, 1 - weight))
    nevus = (drawn == NEVUS).astype(int)
    nats, by_chance = information(nevus, amount)
    # A permuted batch has every image in two rows, which are not independent.
    assert (nats > 2 * by_chance) == (name in BY_DESIGN)
    shares = [nevus[amount == tenth].mean() for tenth in (0, amount.max())]
    print(f"{name}: {nats:.4f} nats, by chance {by_chance:.4f}; nevi", *shares)  # with -rP
    expected = BY_DESIGN.get(name, (0.69, 0.69))
    assert shares == pytest.approx(expected, abs=0.05)
