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

    https://arxiv.org/abs/1604.03540, section 4: the top share of the batch by loss (there, of the
    regions of an image, after suppression of their duplicates, which whole images do not need).

    Barata and Santiago write OHEM as min over v in [0, 1]^M of (1/M) sum_j v_j l_j
    + (lambda/M) sum_j v_j. As losses and lambda are not negative, v = 0 solves that for all
    samples: nothing would be trained. The sign makes sense as an inner maximisation, max over v
    of (1/M) sum_j v_j l_j - (lambda/M) sum_j v_j, which gives the v_j above.

    Args:
        keep: Share of the global batch that is trained, at least one sample; 1 trains all.
        threshold: Lambda itself, instead of a share; 0 trains all.
        **kwargs: As for :class:`SelectedLoss`.
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
        return losses >= easiest  # lambda is just below
