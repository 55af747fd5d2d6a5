"""A compiled training takes the steps of one that is not, and resumes as it does."""

import pytest
import torch

from callbacks import Compile
from experiments.recipes import find
from tests.test_experiments import small_networks
from tests.test_interruptions import PLAIN, Tell, _quick, assert_same_run, fit

__all__ = ["_quick", "small_networks"]  # fixtures

COMPILED = ["--trainer.callbacks+=callbacks.Compile", "--trainer.callbacks.backend=eager"]


@pytest.fixture
def compiled(monkeypatch):
    """The options of each compilation."""
    told = []

    def compile_(function, **options):
        told.append(options)
        return make(function, **options)

    make = torch.compile
    monkeypatch.setattr(torch, "compile", compile_)
    return told


@pytest.mark.usefixtures("small_networks", "_quick")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which the compiler looks at
def test_a_compiled_run_is_that_of_python(lesions, compiled):
    """SPMix, with all that draws or remembers: pairs, views, mixing, queue, key network."""
    assert fit(find("spmix"), lesions, "python") == 0
    assert compiled == []
    assert fit(find("spmix"), lesions, "compiled", Tell(2), more=COMPILED) == 75
    assert fit(find("spmix"), lesions, "compiled", more=COMPILED) == 0
    assert [options["backend"] for options in compiled] == ["eager"] * 2
    assert_same_run("python", "compiled")


@pytest.mark.usefixtures("small_networks", "_quick")
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_compiled_run_has_the_same_moving_average(lesions, compiled):
    average = ["--trainer.callbacks+=callbacks.EMA", "--trainer.callbacks.decay=0.5"]
    both = [*average, *COMPILED]
    assert fit(PLAIN, lesions, "python", more=average) == 0
    assert compiled == []
    assert fit(PLAIN, lesions, "compiled", Tell(2), more=both) == 75
    assert fit(PLAIN, lesions, "compiled", more=both) == 0
    assert len(compiled) == 2
    assert_same_run("python", "compiled")
    one, other = (torch.load(f"runs/{name}/seed0/last.ckpt") for name in ("python", "compiled"))
    for part in ("current_model_state", "averaging_state"):
        torch.testing.assert_close(one[part], other[part], rtol=0, atol=0)


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
