"""Mixing must not reveal the class: how an image is mixed is independent of its label."""

import inspect
import itertools
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from datamodules.samplers import Paired
from experiments.recipes import read, recipes
from lightning_modules import mixes
from lightning_modules.mixes import FillingPatchMix, PatchMix

COUNTS = [1053, 6645, 454, 267, 1039, 55, 82]  # training images of the balanced split
GRID = (8, 8)
LITERAL = {"spmix_literal"}  # has a known shortcut
RECIPES = {
    name: settings
    for name in recipes()
    if "samplers.Paired" in str((settings := read(name))["data"].get("sampler"))
}


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
    more = {"class_counts": COUNTS} if kind is FillingPatchMix else {}
    _, of_sampler = spelled_out(experiment["data"]["sampler"])
    return Paired(labels(), **of_sampler), kind(**options, **more)


def spelled_out(part):
    """Class path and options of a part; without options, it is only a path."""
    return (part, {}) if isinstance(part, str) else (part["class_path"], part.get("init_args", {}))


def test_there_are_experiments_to_look_at():
    assert {"spmix", "spmix_code", "demo"} <= RECIPES.keys()


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
    assert len(list(choices(Paired))) == 6
    assert "probability" in inspect.signature(PatchMix).parameters
