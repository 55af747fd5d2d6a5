"""Base of losses that are weighted means over the samples of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.losses.criterion import Criterion
from lightning_modules.losses.distributed import global_sum


class ClassWeights(ABC):
    """Weights of the classes by their numbers of training images; only their ratios matter."""

    @abstractmethod
    def __call__(self, class_counts: Sequence[int]) -> Tensor:
        """Weights (K,), float64."""


class SampleLoss(Criterion):
    """Weighted mean of the losses of the samples, (1/B) sum_j w_j l_j over the global batch of B.

    A subclass defines the loss of a sample for each label. The loss of a soft label y, as of a mix,
    is the expectation sum_c y_c l_c, and its weight the expectation sum_c y_c w_c.

    Args:
        weights: Weights of the classes; None weights all samples equally.
        normalize: Scale of the weights. ``batch`` divides them by their mean over the global batch,
            so that they sum to B, as in ``F.cross_entropy(weight=w)`` and in Barata and Santiago.
            ``class`` makes them sum to K over the classes, as Cui et al.
            (https://arxiv.org/abs/1901.05555, section 4), so that batches of rare classes have
            larger losses.
        class_counts: Number of training images per class; the command line takes them from the
            data.

    Attributes:
        reweighting: Strength r of the weights, in [0, 1]: each becomes 1 + r (w_c - 1), with w
            summing to K, and is then scaled by ``normalize``. 1, the initial value, weighs by w; 0
            weighs all samples equally. :class:`callbacks.Anneal` may step it from 0 to 1, which is
            deferred re-weighting, DRW (https://arxiv.org/abs/1906.07413).

    Shape:
        Logits (B, K) of any floating type; labels (B,) int64, or soft labels (B, K). Computed in
        float32 or better; the scalar is the same in all processes.

    Raises:
        ModelError: ``weights`` need ``class_counts``, which are empty.
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
        self.reweighting = 1.0
        w = None if weights is None else weights(class_counts)
        w = None if w is None else (w * len(w) / w.sum()).float()
        self.register_buffer(
            "class_weights", w, persistent=False
        )  # options are not saved in checkpoints

    @abstractmethod
    def per_label(self, logits: Tensor) -> Tensor:
        """Losses (B, K) of each sample for each label, by logits (B, K) in float32 or better."""

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses (B,) of the samples."""
        return expectation(self.per_label(at_least_float32(logits)), target)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.mean(self.per_sample(logits, target), target)

    def mean(self, losses: Tensor, target: Tensor, among: Tensor | None = None) -> Tensor:
        """Weighted mean of losses (B,) over the samples in the mask ``among`` (B,)."""
        weights = torch.ones_like(losses)
        if self.class_weights is not None:
            w = self.class_weights.to(losses.dtype)
            w = torch.ones_like(w).lerp(w, self.reweighting)  # exact at 0 and 1
            weights = expectation(w.expand(len(losses), -1), target)
        counted = weights if self.normalize == "batch" else torch.ones_like(losses)
        if among is not None:
            counted = counted * among
        # Sums of all processes before the division: in a mean of the processes' means, the weight
        # of a rare image would depend on the other images of its process.
        total, size = global_sum(torch.stack([(weights * losses).sum(), counted.sum()]))
        return total / size.clamp(min=1e-12)


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or in its own type if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def expectation(values: Tensor, target: Tensor) -> Tensor:
    """Values (B,) of labels (B,), or expectations under soft labels (B, K), of values (B, K)."""
    if target.ndim == 1:
        return values.gather(1, target[:, None]).squeeze(1)
    return (target.to(values.dtype) * values).sum(1)


def as_counts(class_counts: Sequence[int]) -> Tensor:
    """Images per class (K,), float64; at least 1, because some formulas divide by it."""
    if len(class_counts) == 0:
        raise ModelError("class_counts is empty: this loss needs the training images per class.")
    return torch.tensor(class_counts, dtype=torch.float64).clamp(min=1)
