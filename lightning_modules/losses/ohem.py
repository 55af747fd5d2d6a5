"""Online hard example mining."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_modules.losses.distributed import gather
from lightning_modules.losses.selection import SelectedLoss


class OHEMLoss(SelectedLoss):
    """Online hard example mining: trains the hard samples, v_j = 1[l_j > lambda].

    https://arxiv.org/abs/1604.03540, section 4: the share of the batch with the largest losses. The
    paper selects among the regions of an image and first suppresses duplicates, which whole images
    do not need.

    Barata and Santiago write OHEM as min over v in [0, 1]^M of (1/M) sum_j v_j l_j
    + (lambda/M) sum_j v_j. Because losses and lambda are not negative, its solution is v = 0, which
    trains no sample. Read as an inner maximization, max over v of (1/M) sum_j v_j l_j
    - (lambda/M) sum_j v_j, it gives the v_j above.

    Args:
        keep: Share of the global batch to train, in (0, 1], at least one sample; 1 trains all.
        threshold: Fixed lambda, at least 0, in place of ``keep``; 0 trains all samples.
        **kwargs: As for :class:`SelectedLoss`.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> loss = OHEMLoss(keep=0.5, average="selected")  # the second sample is harder
        >>> loss(logits, torch.tensor([0, 1]))
        tensor(0.3133)
    """

    def __init__(self, keep: float = 0.7, threshold: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keep, self.threshold = keep, threshold

    def select(self, losses: Tensor) -> Tensor:
        if self.threshold is not None:
            return losses > self.threshold
        if self.keep >= 1:
            return torch.ones_like(losses, dtype=torch.bool)
        batch = gather(losses).sort(descending=True).values
        easiest = batch[max(1, math.ceil(self.keep * len(batch) - 1e-9)) - 1]
        return losses >= easiest  # lambda lies just below
