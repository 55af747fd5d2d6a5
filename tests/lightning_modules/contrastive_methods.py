"""Small contrastive classifiers and their training steps, for tests and their subprocesses."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightning_modules import BCL, Classifier, PaCo, ProCo, SupCon
from lightning_modules.losses import (
    BalancedContrastiveLoss,
    LogitAdjustedLoss,
    PaCoLoss,
    SupConLoss,
)
from lightning_modules.networks import BCLNetwork, ContrastiveNetwork
from lightning_modules.networks.momentum_queue import follow

COUNTS = [1113, 6705, 514, 327, 1099, 115, 142]
QUEUE = 27  # not a multiple of any batch size


class Encoder(nn.Module):
    """An encoder with the interface of TimmNetwork and few weights."""

    width = 32

    def __init__(self, batch_norm: bool) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.reset_classifier = lambda number: None
        norm = nn.BatchNorm1d if batch_norm else nn.LayerNorm
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 32), norm(32), nn.ReLU())

    def encode(self, images: Tensor) -> Tensor:
        return self.layers(images)


def sgd(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def supcon(encoder: Encoder) -> Classifier:
    network = ContrastiveNetwork(encoder, embedding=16)
    return SupCon(network, SupConLoss(), nn.CrossEntropyLoss(), optimizer=sgd)


def paco(encoder: Encoder, momentum: float | None = 0.9) -> Classifier:
    network = ContrastiveNetwork(encoder, embedding=16)
    return PaCo(network, PaCoLoss(COUNTS), queue_size=QUEUE, momentum=momentum, optimizer=sgd)


def gpaco(encoder: Encoder) -> Classifier:
    return paco(encoder, momentum=None)


def predicting(encoder: Encoder) -> Classifier:
    network = ContrastiveNetwork(encoder, embedding=16, predictor_layers=2)
    return PaCo(network, PaCoLoss(COUNTS), queue_size=QUEUE, momentum=0.9, optimizer=sgd)


def bcl(encoder: Encoder) -> Classifier:
    network, criterion = BCLNetwork(encoder, embedding=16), LogitAdjustedLoss(COUNTS)
    return BCL(network, criterion, BalancedContrastiveLoss(), optimizer=sgd)


def proco(encoder: Encoder) -> Classifier:
    network, criterion = ContrastiveNetwork(encoder, embedding=16), nn.CrossEntropyLoss()
    options = {"queue_size": QUEUE, "momentum": 0.9, "optimizer": sgd}
    return ProCo(network, BalancedContrastiveLoss(), criterion=criterion, **options)


METHODS: dict[str, Callable[[Encoder], Classifier]] = {
    method.__name__: method for method in (supcon, paco, gpaco, predicting, bcl, proco)
}


def make(method: str, batch_norm: bool = True) -> Classifier:
    """A classifier with the same weights at every call, which logs nothing without a trainer."""
    torch.manual_seed(0)
    module = METHODS[method](Encoder(batch_norm))
    module.log = lambda *_: None
    return module


def views(method: str) -> int:
    return 3 if method == "bcl" else 2


def batch(method: str, seed: int = 0, size: int = 8) -> dict[str, Tensor]:
    """Images (size, 3, 8, 8) in the number of views of the method; one class is absent."""
    generator, number = torch.Generator().manual_seed(seed), views(method)
    image = torch.rand(size, 3, 8, 8, generator=generator).repeat(number, 1, 1, 1)
    label = torch.randint(0, 6, (size,), generator=generator)
    noise = torch.rand(image.shape, generator=generator)
    index = torch.arange(size)
    return {
        "image": (image + noise) / 2,
        "label": label.repeat(number),
        "index": index.repeat(number),
    }


def in_float64(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}


def without_syncing_buffers(step: DistributedDataParallel) -> DistributedDataParallel:
    """Disable the broadcast of buffers, which would hide errors of the second process."""
    step.broadcast_buffers = False  # torch renamed the constructor's argument
    return step


class Step(nn.Module):
    """A training step as the forward of a module, which is how Lightning wraps it for DDP."""

    def __init__(self, module: Classifier) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.module.training_step(batch, 0)


def train(
    module: Classifier,
    step: nn.Module,
    batches: list[dict[str, Tensor]],
    half: torch.dtype | None = None,
) -> list[float]:
    """Losses of a few steps of gradient descent, in mixed precision if ``half``."""
    optimizer = sgd([p for p in module.parameters() if p.requires_grad])
    losses = []
    for each in batches:
        with torch.autocast("cpu", half, enabled=half is not None):
            loss = step(each)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if getattr(module, "momentum", None) is not None:
            follow(module.key_network, module.network, module.momentum)
    return losses


def one_of_two(rank: int) -> dict[str, dict[str, Any]]:
    """Train every method on this process's share of the batches; return losses and states."""
    found = {}
    for method in METHODS:
        module = make(method, batch_norm=False).double()
        step = without_syncing_buffers(DistributedDataParallel(Step(module)))
        shares = [
            {
                name: torch.cat([v.chunk(2)[rank] for v in value.chunk(views(method))])
                for name, value in in_float64(batch(method, seed)).items()
            }
            for seed in range(4)
        ]
        found[method] = {"losses": train(module, step, shares), "state": module.state_dict()}
    return found
