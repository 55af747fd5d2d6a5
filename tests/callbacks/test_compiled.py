"""A compiled training takes the steps of one that is not, and resumes as it does."""

import pytest
import torch

from callbacks import Compile
from experiments.recipes import find
from tests.test_experiments import small_networks
from tests.test_interruptions import PLAIN, Tell, _quick, assert_same_run, fit

__all__ = ["_quick", "small_networks"]  # fixtures

COMPILED = ["--trainer.callbacks+=callbacks.Compile", "--trainer.callbacks.backend=eager"]


@pytest.mark.usefixtures("small_networks", "_quick")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which the compiler looks at
def test_a_compiled_run_is_that_of_python(lesions, monkeypatch):
    """SPMix, with all that draws or remembers: pairs, views, mixing, queue, key network."""
    compiled = []

    def compile_(function, **options):
        compiled.append(options)
        return make(function, **options)

    make = torch.compile
    monkeypatch.setattr(torch, "compile", compile_)
    assert fit(find("spmix"), lesions, "python") == 0
    assert compiled == []
    assert fit(find("spmix"), lesions, "compiled", Tell(2), more=COMPILED) == 75
    assert fit(find("spmix"), lesions, "compiled", more=COMPILED) == 0
    assert [options["backend"] for options in compiled] == ["eager"] * 2
    assert_same_run("python", "compiled")


@pytest.mark.usefixtures("small_networks", "_quick")
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_compiled_run_has_the_same_moving_average(lesions):
    average = ["--trainer.callbacks+=callbacks.EMA", "--trainer.callbacks.decay=0.5"]
    both = [*average, *COMPILED]
    assert fit(PLAIN, lesions, "python", more=average) == 0
    assert fit(PLAIN, lesions, "compiled", Tell(2), more=both) == 75
    assert fit(PLAIN, lesions, "compiled", more=both) == 0
    assert_same_run("python", "compiled")


def test_the_module_is_as_before_after_training():
    module = torch.nn.Module()
    module.training_step = step = lambda: 3
    module.log = print
    callback = Compile(backend="eager")
    callback.on_train_start(None, module)
    assert module.training_step is not step
    assert module.training_step() == 3
    callback.on_train_end(None, module)
    assert not hasattr(module, "training_step")
