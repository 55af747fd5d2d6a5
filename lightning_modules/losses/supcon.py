"""Supervised contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.losses.contrastive import ContrastiveBatch, log_sum_exp
from lightning_modules.losses.criterion import ContrastiveLoss
from lightning_modules.losses.distributed import global_sum


class SupConLoss(ContrastiveLoss):
    """Supervised contrastive loss, L_out (https://arxiv.org/abs/2004.11362, eq. 2).

    L_i = -1 / |P(i)| sum_{p in P(i)} log(exp(f_i f_p / T) / sum_{a != i} exp(f_i f_a / T)), and the
    mean of it over the anchors of the global batch that have positives P(i). The published code
    also multiplies it by T / 0.07, which is 1 at its default T.

    Args:
        temperature: Temperature T of the cosines, greater than 0.

    Shape:
        A :class:`~lightning_modules.losses.contrastive.ContrastiveBatch` to a scalar, the same in
        all processes; 0 if no anchor has positives.

    Examples:
        >>> embedding = torch.nn.functional.normalize(torch.rand(4, 8), dim=1)
        >>> label, logits = torch.tensor([0, 0, 1, 1]), torch.zeros(4, 2)
        >>> batch = ContrastiveBatch.of_all(embedding, label, logits)
        >>> SupConLoss(temperature=0.07)(batch).shape
        torch.Size([])
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, batch: ContrastiveBatch) -> Tensor:
        similarity = batch.similarity(self.temperature)
        losses = self.denominator(similarity, batch) - similarity  # (A, N)
        positives = batch.positives.to(losses.dtype)
        count = positives.sum(1)
        per_anchor = (positives * losses).sum(1) / count.clamp(min=1)
        total, anchors = global_sum(torch.stack([per_anchor.sum(), (count > 0).sum()]))
        return total / anchors.clamp(min=1)

    def denominator(self, similarity: Tensor, batch: ContrastiveBatch) -> Tensor:
        """Logarithm (A, 1) of the denominator, from similarities (A, N)."""
        return log_sum_exp(similarity, batch.others)
