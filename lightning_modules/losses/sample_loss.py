"""What all losses share that are means over the samples of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_modules.errors import ModelError
from lightning_modules.losses.distributed import global_sum


class ClassWeights(ABC):
    """Training images per class, N_c, to a weight per class; only their ratios matter."""

    @abstractmethod
    def __call__(self, class_counts: Sequence[int]) -> Tensor:
        """Weights (K,), float64."""


class SampleLoss(nn.Module):
    """The weighted mean of what each sample of the global batch of B costs, (1/B) sum_j w_j l_j.

    A subclass says what each label would cost a sample. A soft label y, as mixing makes it, costs
    the expectation sum_c y_c l_c, and its weight is the expectation sum_c y_c w_c.

    Args:
        weights: What a sample weighs by its class; None weighs all samples alike.
        normalize: How weights are scaled. ``batch`` divides them by their mean over the global
            batch, so that they sum to B; this is ``F.cross_entropy(weight=w)``, and what Barata
            and Santiago print. ``class`` makes them sum to K over the classes, as Cui et al. do
            (https://arxiv.org/abs/1901.05555, section 4): a batch of rare classes counts more.
        class_counts: Training images per class; the command line takes them from the data.

    Shape:
        Logits (B, K) of any floating type; labels (B,) int64, or soft labels (B, K). Computed in
        float32 or better; the scalar is the same in all processes.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        weights: ClassWeights | None = None,
        normalize: Literal["batch", "class"] = "batch",
        class_counts: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.normalize = normalize
        w = None if weights is None else weights(class_counts)
        w = None if w is None else (w * len(w) / w.sum()).float()
        self.register_buffer("class_weights", w, persistent=False)  # a checkpoint holds no config

    @abstractmethod
    def per_label(self, logits: Tensor) -> Tensor:
        """What every label would cost: logits (B, K), float32 or better, to losses (B, K)."""

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses (B,)."""
        return expectation(self.per_label(at_least_float32(logits)), target)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.mean(self.per_sample(logits, target), target)

    def mean(self, losses: Tensor, target: Tensor, among: Tensor | None = None) -> Tensor:
        """The weighted mean of losses (B,), in which only samples in ``among`` (B,) are counted."""
        weights = torch.ones_like(losses)
        if self.class_weights is not None:
            weights = expectation(
                self.class_weights.to(losses.dtype).expand(len(losses), -1), target
            )
        counted = weights if self.normalize == "batch" else torch.ones_like(losses)
        if among is not None:
            counted = counted * among
        # Summed before they are divided: a mean of the processes' means would weigh a rare image
        # by the company it has in its process.
        total, size = global_sum(torch.stack([(weights * losses).sum(), counted.sum()]))
        return total / size.clamp(min=1e-12)


def at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def expectation(values: Tensor, target: Tensor) -> Tensor:
    """Of values (B, K): that of the label (B,), or the mean under the soft label (B, K); (B,)."""
    if target.ndim == 1:
        return values.gather(1, target[:, None]).squeeze(1)
    return (target.to(values.dtype) * values).sum(1)


def as_counts(class_counts: Sequence[int]) -> Tensor:
    """Images per class (K,), float64; a class without images counts as one, and never occurs."""
    if len(class_counts) == 0:
        raise ModelError("class_counts is empty: this loss needs the training images per class.")
    return torch.tensor(class_counts, dtype=torch.float64).clamp(min=1)
