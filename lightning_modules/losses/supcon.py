"""Supervised contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_modules.losses.contrast import Contrast, log_sum_exp
from lightning_modules.losses.distributed import global_sum


class SupConLoss(nn.Module):
    """Supervised contrastive loss, L_out (https://arxiv.org/abs/2004.11362, eq. 2).

    L_i = -1 / |P(i)| sum_{p in P(i)} log(exp(f_i f_p / T) / sum_{a != i} exp(f_i f_a / T)), and the
    mean of it over the anchors of the global batch that have positives P(i). The published code
    also multiplies it by T / 0.07, which is 1 at its default T.

    Args:
        temperature: T, by which cosines are divided.

    Shape:
        A :class:`~lightning_modules.losses.contrast.Contrast` to a scalar, the same in all
        processes; 0 where no anchor has positives.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, contrast: Contrast) -> Tensor:
        similarity = contrast.similarity(self.temperature)
        losses = self.denominator(similarity, contrast) - similarity  # (A, N)
        positives = contrast.positives.to(losses.dtype)
        count = positives.sum(1)
        per_anchor = (positives * losses).sum(1) / count.clamp(min=1)
        total, anchors = global_sum(torch.stack([per_anchor.sum(), (count > 0).sum()]))
        return total / anchors.clamp(min=1)

    def denominator(self, similarity: Tensor, contrast: Contrast) -> Tensor:
        """Logarithm (A, 1) of what the exponentials of similarities (A, N) are divided by."""
        return log_sum_exp(similarity, contrast.others)
