"""Sharpness-aware minimization: steps by the gradient at the worst weights of a neighborhood."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from callbacks.errors import RunError
from callbacks.run_callback import RunCallback

PRECISIONS = ("32-true", "64-true", "bf16-mixed")  # weights fine enough for the perturbation
TINY = 1e-12  # of a gradient that is 0, whose direction is then 0


class SAM(RunCallback):
    """Sharpness-aware minimization, SAM (https://arxiv.org/abs/2010.01412, eq. 2 and algorithm 1).

    Before each step the gradient g at the weights w is replaced by the gradient at w + e, with
    e = rho g / ||g||. The norm is that of all trained parameters together. Any optimizer then takes
    its step from w; weight decay, gradient clipping, schedules and averages of the weights see the
    replaced gradient only. A step costs two forward and backward passes.

    Both passes are of the same batch, with the same random numbers: mixes, dropout and augmentation
    are the same. Both start from the same buffers, and those of the first pass are kept, so that
    running statistics of batch norm, queues and prototypes are what they would be without SAM.
    With several processes, g is the gradient of the global batch, so that e is the same in all of
    them. (The paper's code perturbs by the gradient of each device's share, its m-sharpness.)
    Nothing is saved, because e is a function of weights and batch: a resumed run continues exactly.
    Losses are logged at w.

    Args:
        rho: Radius of the neighborhood, at least 0. 0 is plain training at twice its cost; 0.05 is
            the paper's default.

    Raises:
        RunError: Gradients are accumulated, scaled or sharded, or the module takes its own steps.
    """

    def __init__(self, rho: float = 0.05) -> None:
        super().__init__()
        if rho < 0:
            raise RunError(f"{type(self).__name__} got rho={rho}: set a radius of at least 0.")
        self.rho = rho
        self.batch: dict[str, Tensor] = {}
        self.batch_idx = 0
        self.rng: list[Tensor] = []
        self.buffers: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        name = type(self).__name__
        if trainer.accumulate_grad_batches != 1:
            raise RunError(
                f"{name} needs the gradient of a whole step, of which accumulation forgets all "
                "batches but the last: set --trainer.accumulate_grad_batches=1."
            )
        if trainer.precision not in PRECISIONS:
            raise RunError(
                f"{name} moves weights by less than {trainer.precision} resolves, or by scaled "
                f"gradients: set --trainer.precision to one of {', '.join(PRECISIONS)}."
            )
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise RunError(
                f"{name} needs whole gradients in each process: set --trainer.strategy to auto or "
                "ddp."
            )
        if not pl_module.automatic_optimization or not any(
            parameter.requires_grad for parameter in pl_module.parameters()
        ):
            raise RunError(
                f"{name} needs a module that trains by the trainer's steps, which "
                f"{type(pl_module).__name__} does not: remove {name} from trainer.callbacks."
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch = batch
        self.batch_idx = batch_idx
        self.rng = random_state(pl_module.device)
        self.buffers = copied(pl_module)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        parameters, gradients = gradient(pl_module)
        with moved(parameters, gradients, self.rho):
            self.repeat(trainer, pl_module, optimizer)

    def repeat(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Compute the gradient of the batch again, at the present weights."""
        strategy = trainer.strategy
        pl_module.zero_grad()
        with (
            torch.enable_grad(),
            replayed(self.rng, pl_module.device),
            restored(pl_module, self.buffers),
            unlogged(pl_module),
        ):
            output: Any = strategy.training_step(self.batch, self.batch_idx)
            strategy.backward(output["loss"] if isinstance(output, dict) else output, optimizer)


class ImbSAM(SAM):
    """Imbalanced SAM (https://arxiv.org/abs/2308.07815): SAM of the rare classes only.

    The loss of a batch is the sum of the losses of its head classes and of its tail classes; the
    step is by the gradient of the head's at w plus that of the tail's at w + e, and e follows the
    gradient of the tail's alone. A batch without tail images has e = 0. A step costs three forward
    and backward passes, one more than :class:`SAM`.

    The gradient of a part is what flows through the logits of its images. For a loss that is a
    mean over images, with or without weights, this is the gradient of the sum over these images,
    divided as in the whole batch.

    Args:
        rho: Radius of the neighborhood, at least 0. 0 with ``tail_weight`` 1 is plain training.
        threshold: Share of the training images below which a class is a tail class, in (0, 1). The
            paper states a number of images instead, eta; in its code 20 for CIFAR-100-LT, a share
            of 0.0018.
        tail_weight: Weight of the tail's loss, at least 0. The published code
            (https://github.com/cool-xuan/Imbalanced_SAM) doubles it.

    Raises:
        RunError: As for :class:`SAM`, or no class or every class is a tail class, images are mixed,
            or the module does not classify each image of a batch once.
    """

    def __init__(
        self, rho: float = 0.05, threshold: float = 0.04, tail_weight: float = 1.0
    ) -> None:
        super().__init__(rho)
        self.threshold = threshold
        self.tail_weight = tail_weight

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        counts = torch.tensor(self.data(trainer).class_counts, device=pl_module.device)
        shares = counts / counts.sum()
        self.tail = shares < self.threshold
        if not 0 < self.tail.sum() < len(counts):
            raise RunError(
                f"{int(self.tail.sum())} of {len(counts)} classes have less than "
                f"{self.threshold:g} of the training images, so that none or all are tail classes: "
                f"set --trainer.callbacks.threshold between {shares.min():.4f} and "
                f"{shares.max():.4f}."
            )
        if not isinstance(getattr(pl_module, "mix", nn.Identity()), nn.Identity):
            raise RunError(
                "ImbSAM needs images of one class each: set --model.mix=null, or use callbacks.SAM."
            )

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        parameters, whole = gradient(pl_module)
        with self.tail_alone(pl_module):
            self.repeat(trainer, pl_module, optimizer)
            _, tail = gradient(pl_module)
            with moved(parameters, tail, self.rho):
                self.repeat(trainer, pl_module, optimizer)
        _, steep = gradient(pl_module)
        for parameter, total, at_w, at_e in zip(parameters, whole, tail, steep, strict=True):
            parameter.grad = total - at_w + self.tail_weight * at_e

    @contextmanager
    def tail_alone(self, pl_module: LightningModule) -> Iterator[None]:
        """Let gradients flow through the logits of the images of tail classes only."""
        label, calls = self.batch["label"], 0

        def hook(_: nn.Module, __: Any, logits: Any) -> Tensor:
            nonlocal calls
            calls += 1
            if not isinstance(logits, Tensor) or logits.shape[:1] != label.shape:
                raise RunError(cause)
            return torch.where(self.tail[label][:, None], logits, logits.detach())

        cause = (
            f"ImbSAM needs a module whose network classifies each image of a batch once, which "
            f"{type(pl_module).__name__} does not: use callbacks.SAM instead."
        )
        network: Any = pl_module.network
        handle = network.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()
        if not calls:
            raise RunError(cause)


def gradient(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters of a module that have a gradient, and these gradients."""
    pairs = [(p, p.grad) for p in module.parameters() if p.grad is not None]
    return [parameter for parameter, _ in pairs], [grad for _, grad in pairs]


@contextmanager
def moved(parameters: list[Tensor], gradients: list[Tensor], rho: float) -> Iterator[None]:
    """Move parameters by ``rho`` along the gradients, and back to the same bits afterwards."""
    with torch.no_grad():
        before = [parameter.clone() for parameter in parameters]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_add_(parameters, torch._foreach_mul(gradients, rho / (norm + TINY)))
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(parameters, before)


def random_state(device: torch.device) -> list[Tensor]:
    """States of the random numbers of the CPU and, if it has its own, of the device."""
    on_device = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_device]


@contextmanager
def replayed(states: list[Tensor], device: torch.device) -> Iterator[None]:
    """Draw random numbers from the states of :func:`random_state`."""
    with torch.random.fork_rng(devices=[device] if len(states) > 1 else []):
        torch.set_rng_state(states[0])
        for state in states[1:]:
            torch.cuda.set_rng_state(state, device)
        yield


def copied(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the buffers of a module by name."""
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


@contextmanager
def restored(module: nn.Module, buffers: dict[str, Tensor]) -> Iterator[None]:
    """Set the buffers of a module to ``buffers``, and back afterwards."""
    after = copied(module)
    for name, buffer in module.named_buffers():
        buffer.copy_(buffers[name])
    try:
        yield
    finally:
        for name, buffer in module.named_buffers():
            buffer.copy_(after[name])


@contextmanager
def unlogged(module: LightningModule) -> Iterator[None]:
    """Log nothing: the values of a further pass would replace those of the step."""
    vars(module)["log"] = lambda *_, **__: None
    try:
        yield
    finally:
        del vars(module)["log"]
