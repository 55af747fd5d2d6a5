"""What the README shows works as it stands there."""

import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from experiments.command_line.cli import run_command
from experiments.recipes import find
from lightning_modules import losses

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", README, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in found]


@pytest.fixture
def added(monkeypatch):
    """The example's loss, as if its file and its line in ``__init__`` were there."""
    loss, _ = blocks("python")
    module = ModuleType("lightning_modules.losses.poly")
    exec("from __future__ import annotations\n" + loss, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(losses, "PolyLoss", module.PolyLoss, raising=False)


@pytest.mark.usefixtures("added")
def test_the_example_passes_its_tests():
    namespace: dict = {}
    exec(blocks("python")[1], namespace)
    tests = [value for name, value in namespace.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


@pytest.mark.usefixtures("added")
def test_the_example_is_an_experiment(lesions):
    experiment = yaml.safe_load(find("small_ce").read_text())
    (criterion,) = blocks("yaml")
    experiment["model"]["init_args"] |= yaml.safe_load(criterion)
    Path("poly.yaml").write_text(yaml.safe_dump(experiment))
    options = (f"--data.root={lesions}", "--data.split.test_images=3", "--data.split.val_images=2")
    small = ("--data.size=32", "--trainer.accelerator=cpu", "--trainer.fast_dev_run=true")
    cli = run_command(["fit", "--config=poly.yaml", *options, *small])
    assert cli.model.criterion.epsilon == 2
    assert cli.trainer.global_step == 1


@pytest.mark.parametrize("name", sorted(set(re.findall(r"EXP=(\w+)", README))))
def test_recipes_that_are_named_exist(name):
    assert name in {"archived", "short", "vgg_poly"} or find(name)
