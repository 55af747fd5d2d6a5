"""Self-paced learning."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_modules.losses.distributed import gather
from lightning_modules.losses.selection import SelectedLoss


class SelfPacedLoss(SelectedLoss):
    """Self-paced learning (SPL): trains the easy samples, v_j = 1[l_j < lambda].

    https://papers.nips.cc/paper/3923-self-paced-learning-for-latent-variable-models. This
    minimizes (1/M) sum_j v_j l_j - (lambda/M) sum_j v_j over v in [0, 1]^M, where lambda, the age,
    grows. The paper multiplies lambda by 1.3 in each round; here it is a quantile of the losses,
    and the callback ``Anneal`` moves the quantile to 1. Easy samples are mostly of common classes,
    so on long-tailed data SPL reaches rare classes last.

    Args:
        quantile: Share of the global batch to train, in (0, 1], at least one sample; 1 trains all.
        momentum: Weight of the past in the exponential moving average of the quantiles, in
            [0, 1); 0 uses the quantile of the current batch.
        threshold: Fixed lambda in place of ``quantile``; infinity trains all samples.
        **kwargs: As for :class:`SelectedLoss`.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> loss = SelfPacedLoss(quantile=0.5, average="selected")  # the first sample is easier
        >>> loss(logits, torch.tensor([0, 1]))
        tensor(0.1269)
    """

    age: Tensor

    def __init__(
        self,
        quantile: float = 0.5,
        momentum: float = 0.0,
        threshold: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.quantile, self.momentum, self.threshold = quantile, momentum, threshold
        self.register_buffer("age", torch.tensor(math.nan))  # until the first batch

    def select(self, losses: Tensor) -> Tensor:
        if self.threshold is not None:
            return losses < self.threshold
        if self.quantile >= 1:
            return torch.ones_like(losses, dtype=torch.bool)
        batch = gather(losses).sort().values
        hardest = batch[max(1, math.floor(self.quantile * len(batch) + 1e-9)) - 1]
        if self.momentum:
            hardest = self.smooth(hardest)
        return losses.to(hardest.dtype) <= hardest  # lambda lies just above

    def smooth(self, quantile: Tensor) -> Tensor:
        """Update the moving average with the quantile of this batch, which starts it."""
        if self.training:
            moved = self.age.lerp(quantile.to(self.age.dtype), 1 - self.momentum)
            self.age.copy_(torch.where(self.age.isnan(), quantile.to(self.age.dtype), moved))
        return self.age
