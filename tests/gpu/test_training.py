"""Training on a GPU: ``pytest -m gpu``. With ``--device=cpu`` these tests try themselves."""

import copy

import pytest
import torch

from experiments.command_line.cli import run_command
from experiments.recipes import find
from tests.gpu.steps import augmented, batches
from tests.test_experiments import arguments, small_networks
from tests.test_interruptions import Tell, _quick, assert_same_run, fit

__all__ = ["_quick", "small_networks"]  # fixtures

RECIPES = ["vgg_ce", "bcl", "paco", "spmix", "finetune_ce"]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("small_networks"),
    # Operations without a deterministic form are told of; the test below would notice them.
    pytest.mark.filterwarnings("ignore:.*deterministic"),
]


@pytest.fixture
def device(request):
    chosen = torch.device(request.config.getoption("--device"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("There is no CUDA device.")
    return chosen


@pytest.fixture
def accelerator(device):
    return f"--trainer.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}"


def loss_and_gradients(module, batch, device):
    module = copy.deepcopy(module).to(device).train()
    loss = module.training_step({key: value.to(device) for key, value in batch.items()}, 0)
    loss.backward()
    gradients = [p.grad.flatten().cpu() for p in module.parameters() if p.grad is not None]
    return loss.item(), torch.cat(gradients)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_is_that_of_the_cpu(recipe, lesions, device, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    cli = run_command(["fit", *arguments(find(recipe), lesions), "--data.size=64"])
    module, cpu = cli.model, torch.device("cpu")
    module._trainer = None
    module.log = lambda *_, **__: None
    if recipe == "spmix":
        module.mix.noise = 0.0  # which every device draws for itself
    batch = augmented(cli.datamodule, next(batches(cli.datamodule)), cpu)
    expected, gradients = loss_and_gradients(module, batch, cpu)
    loss, found = loss_and_gradients(module, batch, device)
    assert loss == pytest.approx(expected, rel=1e-4)
    assert gradients.norm() > 0
    assert (found - gradients).norm() < 1e-3 * gradients.norm()


@pytest.mark.parametrize("recipe", RECIPES)
def test_steps_in_bf16_move_weights_of_float32(recipe, lesions, accelerator):
    cli = run_command(
        [
            "fit",
            *arguments(find(recipe), lesions),
            accelerator,
            "--trainer.precision=bf16-mixed",
            "--trainer.fast_dev_run=3",
        ]
    )
    assert cli.trainer.global_step == 3
    assert cli.trainer.callback_metrics["train/loss"].isfinite()
    for parameter in cli.model.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.isfinite().all()


def test_a_run_resumes_bit_for_bit(lesions, accelerator):
    """SPMix, with all that draws or remembers: pairs, views, mixing, queue, key network."""
    more = [accelerator, "--trainer.deterministic=warn"]
    assert fit(find("spmix"), lesions, "whole", more=more) == 0
    assert fit(find("spmix"), lesions, "stopped", Tell(2), more=more) == 75
    assert fit(find("spmix"), lesions, "stopped", more=more) == 0
    assert_same_run("whole", "stopped")
