"""Every model has the same gradient in two processes (gloo) as in one with the whole batch."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from callbacks.stages.freeze import Freeze
from experiments.command_line.cli import ExperimentCLI, run_command
from experiments.recipes import read
from tests.processes import in_two
from tests.test_experiments import RECIPES, arguments, small_networks
from tests.test_interruptions import _quick

__all__ = ["_quick", "small_networks"]  # fixtures

BATCH, SIZE = 8, 32
FREE = ("optimizer", "lr_scheduler", "lr_factors")  # gradients do not depend on these


def models() -> list[Path]:
    """One recipe per model, ignoring differences in optimization."""
    different = {}
    for path in RECIPES:
        config = read(path.stem)
        model = dict(config["model"], init_args=dict(config["model"]["init_args"]))
        for key in FREE:
            model["init_args"].pop(key, None)
        different.setdefault(str((model, config["data"].get("task"))), path)
    return list(different.values())


class Step(nn.Module):
    """Lightning's training step as a forward pass, for DistributedDataParallel."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model.training_step(batch, 0)


def build(experiment, lesions, monkeypatch):
    """A model without dropout, batch statistics and random mixing, and a batch for it."""
    with monkeypatch.context() as patch:
        patch.setattr(ExperimentCLI, "before_fit", lambda self: None)
        patch.setattr(ExperimentCLI, "fit", lambda self, **_: None)
        cli = run_command(["fit", *arguments(experiment, lesions)])
    model = cli.model.train()
    model.trainer = cli.trainer
    for callback in cli.trainer.callbacks:
        if isinstance(callback, Freeze):
            callback.setup(cli.trainer, model, "fit")
            callback.on_train_start(cli.trainer, model)
    model.log = model.log_dict = lambda *_, **__: None
    if type(getattr(model, "mix", None)).__module__ != "lightning_modules.mixes.spmix":
        model.mix = nn.Identity()  # mixes are tested elsewhere
    for part in model.modules():
        if "Drop" in type(part).__name__ or "BatchNorm" in type(part).__name__:
            part.eval()  # batch norm is synchronized on GPUs only
    return model, batch(cli)


def batch(cli):
    size = getattr(cli.datamodule, "size", SIZE)
    square = torch.zeros(BATCH, 1, size, size)
    square[:, :, size // 4 : size // 2, size // 4 : size // 2] = 1
    images = {
        "image": torch.rand(BATCH, 3, size, size),
        "mask": square,
        "saliency": torch.rand(BATCH, 1, size, size),
        "label": torch.arange(BATCH) % cli.datamodule.num_classes,
        "index": torch.arange(BATCH),
    }
    return cli.datamodule.train_transform(images)


def share(batch, rank):
    """Every second pair of a batch and of each of its views."""
    return {k: v[(torch.arange(len(v)) // 2) % 2 == rank] for k, v in batch.items()}


def learned(module, batch):
    loss = module(batch)
    loss.backward()
    gradients = {
        name.removeprefix("module."): parameter.grad.clone()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }
    buffers = {name.removeprefix("module."): b.clone() for name, b in module.named_buffers()}
    return loss.detach(), gradients, buffers


def one_of_two(rank, model, batch):
    step = DistributedDataParallel(Step(model))
    found = learned(step, share(batch, rank))
    step(share(batch, rank)).backward()  # raises where a parameter had no gradient
    return found


@pytest.mark.skipif(torch.cuda.is_available(), reason="autograd with CUDA outlives no fork")
@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("experiment", models(), ids=lambda path: path.stem)
def test_two_processes_are_one(experiment, lesions, monkeypatch):
    model, batch = build(experiment, lesions, monkeypatch)
    for draw in ("rand", "rand_like", "randn", "randn_like"):  # processes draw differently
        like = torch.ones_like if "like" in draw else torch.ones
        monkeypatch.setattr(torch, draw, lambda *a, like=like, **k: like(*a, **k) / 2)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        pytest.skip("it trains nothing, which Lightning does in one process only")
    first, second = in_two(one_of_two, model, batch)  # first, because it leaves the model unchanged
    loss, gradients, _ = learned(Step(model), batch)
    torch.testing.assert_close((first[0] + second[0]) / 2, loss, rtol=1e-4, atol=1e-6)
    assert gradients
    assert first[1].keys() == gradients.keys()
    scale = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            first[1][name], gradient, rtol=1e-3, atol=1e-5 * scale.item(), msg=name
        )
    torch.testing.assert_close(first[1:], second[1:], rtol=0, atol=0, equal_nan=True)
    apart = max((first[1][name] - gradient).abs().max() for name, gradient in gradients.items())
    difference = ((first[0] + second[0]) / 2 - loss).abs()
    print(f"{experiment.stem}: loss {loss:.4f}, apart by {difference:.0e}; ", end="")
    print(f"largest gradient {scale:.3f}, apart by {apart:.0e}")  # shown with -rP
