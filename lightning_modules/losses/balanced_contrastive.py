"""Balanced contrastive loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.losses.contrastive import ContrastiveBatch, log_sum_exp
from lightning_modules.losses.supcon import SupConLoss


class BalancedContrastiveLoss(SupConLoss):
    """Balanced contrastive loss, BCL (https://arxiv.org/abs/2207.09052, eq. 5 to 7).

    The supervised contrastive loss with the mean, not the sum, over the keys of each class in its
    denominator: sum_j (1 / n_ij) sum_{a in B_j, a != i} exp(f_i f_a / T), with the n_ij keys of
    class j other than the anchor i. So a class counts alike however frequent it is. Class
    prototypes among the keys make sure that each occurs.

    Args:
        num_classes: Number of classes K; the command line takes it from the data.
        temperature: Temperature T, greater than 0; 0.07 in the published code, 0.1 in the paper.

    Shape:
        As :class:`SupConLoss`.
    """

    def __init__(self, num_classes: int = 7, temperature: float = 0.07) -> None:
        super().__init__(temperature)
        self.num_classes = num_classes

    def denominator(self, similarity: Tensor, batch: ContrastiveBatch) -> Tensor:
        key_label = batch.key_label.clamp(min=0)  # of empty slots, which are not others
        classes = F.one_hot(key_label, self.num_classes).to(similarity.dtype)
        with torch.autocast(similarity.device.type, enabled=False):  # half cannot count to 2,049
            count = batch.others.to(similarity.dtype) @ classes  # (A, K)
        mean = similarity - count.clamp(min=1).log()[:, key_label]
        return log_sum_exp(mean, batch.others)
