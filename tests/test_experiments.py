"""Every recipe trains, validates and tests one batch of synthetic images, without waiting."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import timm

from experiments.command_line.cli import run_command
from experiments.recipes import read, recipes
from lightning_modules.networks import timm_network
from tests.equality import TINY, tiny
from tests.synchronization import waits_of_training

ROOT = Path(__file__).parents[1]
RECIPES = list(recipes().values())


@pytest.fixture
def small_networks(_alone, monkeypatch):
    """Replace all networks by tiny ones of timm without pretrained weights."""
    monkeypatch.setattr(timm, "create_model", partial(tiny, timm.create_model))
    monkeypatch.setattr(timm_network, "load", lambda model, name, weights: None)


SMALL = {  # options of recipes that would take long at their own values
    "hidden": "--model.network.hidden=32",
    "queue_size": "--model.queue_size=64",
    "width": "--model.codec.width=32",
}


def options(settings: dict) -> Iterator[tuple[str, object]]:
    """All options that a recipe states, including those of nested parts."""
    for name, value in settings.items():
        yield name, value
        if isinstance(value, dict):
            yield from options(value)


def arguments(experiment: Path, lesions: Path) -> list[str]:
    stated = dict(options(read(str(experiment))))
    return [
        f"--config={experiment}",
        f"--data.root={lesions}",
        *TINY,
        "--trainer.fast_dev_run=true",
        *(flag for option, flag in SMALL.items() if option in stated),
    ]


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("experiment", RECIPES, ids=lambda path: path.stem)
def test_one_batch(experiment, lesions):
    with waits_of_training() as waits:
        cli = run_command(["fit", *arguments(experiment, lesions)])
    assert waits == []
    assert cli.trainer.global_step == 1
    assert cli.config.fit.name == experiment.stem
    cli.trainer.test(cli.model, cli.datamodule, verbose=False)


@pytest.mark.parametrize("experiment", RECIPES, ids=lambda path: path.stem)
def test_header_says_how_to_run_it(experiment):
    header = [line for line in experiment.read_text().splitlines() if line.startswith("#")]
    verb = "make demo" if experiment.stem == "demo" else f"make train EXP={experiment.stem}"
    assert any(line.strip("# ") == verb for line in header)


@pytest.mark.parametrize("experiment", RECIPES, ids=lambda path: path.stem)
def test_pretrained_weights_exist_by_name(experiment):
    """timm must have the networks of the recipes, which the other tests replace."""
    settings = read(experiment.stem)
    parts = [value["init_args"] for _, value in options(settings) if has_name(value)]
    assert parts or settings["model"]["class_path"] == "lightning_modules.Compression"
    for network in parts:
        if network.get("pretrained") is False:
            assert timm.is_model(network["name"])
        elif "cnn" in network:
            assert timm.is_model(network["name"])
            assert network["cnn"] in timm.list_pretrained()
        else:
            assert network["name"] in timm.list_pretrained()


def has_name(value: object) -> bool:
    return isinstance(value, dict) and "name" in value.get("init_args", {})
