"""The method added in docs/guides/add_a_method.md passes its tests and trains."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from experiments.command_line.cli import run_command
from experiments.recipes import find
from lightning_modules import losses
from tests.documents import ROOT, blocks

GUIDE = ROOT / "docs" / "guides" / "add_a_method.md"


@pytest.fixture
def added(monkeypatch):
    """Import the loss of the guide as if it were part of ``lightning_modules.losses``."""
    loss, _ = blocks(GUIDE, "python")
    module = ModuleType("lightning_modules.losses.poly")
    exec("from __future__ import annotations\n" + loss, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(losses, "PolyLoss", module.PolyLoss, raising=False)


@pytest.mark.usefixtures("added")
def test_the_example_passes_its_tests():
    namespace: dict = {}
    exec(blocks(GUIDE, "python")[1], namespace)
    tests = [value for name, value in namespace.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


@pytest.mark.usefixtures("added")
def test_the_example_trains_and_its_number_moves(lesions):
    recipe, anneal = blocks(GUIDE, "yaml")
    settings = yaml.safe_load(find("small_ce").read_text())
    settings["model"]["init_args"] |= yaml.safe_load(recipe)["model"]["init_args"]
    settings["trainer"] |= yaml.safe_load(anneal)["trainer"]
    Path("poly.yaml").write_text(yaml.safe_dump(settings))
    options = (f"--data.root={lesions}", "--data.split.test_images=3", "--data.split.val_images=2")
    small = ("--data.size=32", "--trainer.accelerator=cpu", "--trainer.fast_dev_run=true")
    small += ("--model.criterion.epsilon=1",)
    cli = run_command(["fit", "--config=poly.yaml", *options, *small])
    assert cli.model.criterion.epsilon == 2  # the step of Anneal comes before the last epoch
    assert cli.trainer.global_step == 1
