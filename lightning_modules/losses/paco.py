"""Parametric contrastive loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.losses.contrastive import ContrastiveBatch, log_sum_exp
from lightning_modules.losses.criterion import ContrastiveLoss
from lightning_modules.losses.distributed import global_sum
from lightning_modules.losses.sample_loss import as_counts, at_least_float32


class PaCoLoss(ContrastiveLoss):
    """Parametric contrastive loss: class centers among the keys of a supervised contrastive loss.

    PaCo (https://arxiv.org/abs/2107.12028, eq. 4) and GPaCo (https://arxiv.org/abs/2209.12400). A
    row holds (z + log pi) / supt of the K centers, z being logits and pi_c = N_c / N, and the
    cosines over T of the N keys. With weights M of beta for the own center and alpha for keys of
    the own class, and D of 1 for centers and gamma for keys, 0 for the anchor itself,
    L_i = -sum_j M_ij log(exp(row_ij) / sum_k D_ik exp(row_ik)) / sum_j M_ij.

    The centers' share of the positives is beta / (beta + alpha |P(i)|), so alpha goes with the size
    of the queue and the number of classes: with 7 classes the published 0.05 and a queue of 8,192
    leave the center of the largest class 0.4 %.

    GPaCo's published code can also smooth the labels of the centers, which it does for balanced
    ImageNet alone; there is no such option here.

    Args:
        class_counts: Number N_c of training images per class; the command line takes them from the
            data.
        alpha: Weight of a positive key; 0 with gamma 0 gives logit-adjusted cross-entropy.
        beta: Weight of the center of the label; 0 with alpha 1 leaves centers only in the
            denominator.
        gamma: Weight of a key in the denominator.
        temperature: Temperature T of the cosines, greater than 0.
        supt: Temperature of the class-center logits, greater than 0.

    Shape:
        A :class:`~lightning_modules.losses.contrastive.ContrastiveBatch` to a scalar, the mean
        over the anchors of the global batch, the same in all processes.

    Examples:
        >>> embedding = torch.nn.functional.normalize(torch.rand(4, 8), dim=1)
        >>> label, logits = torch.tensor([0, 0, 1, 1]), torch.zeros(4, 2)
        >>> batch = ContrastiveBatch.of_all(embedding, label, logits)
        >>> PaCoLoss(class_counts=[100, 10])(batch).shape
        torch.Size([])
    """

    log_prior: Tensor

    def __init__(
        self,
        class_counts: Sequence[int],
        alpha: float = 0.05,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 0.2,
        supt: float = 1.0,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature
        self.supt = supt
        counts = as_counts(class_counts)
        log_prior = (counts / counts.sum()).log().float()
        self.register_buffer("log_prior", log_prior, persistent=False)

    def forward(self, batch: ContrastiveBatch) -> Tensor:
        logits = at_least_float32(batch.logits)
        centers = (logits + self.log_prior) / self.supt  # (A, K)
        keys = batch.similarity(self.temperature)  # (A, N)
        losses = self.denominator(centers, keys, batch) - torch.cat([centers, keys], dim=1)
        own_center = F.one_hot(batch.label, centers.shape[1]).to(losses.dtype)
        positives = batch.positives.to(losses.dtype)
        weights = torch.cat([self.beta * own_center, self.alpha * positives], dim=1)
        per_anchor = (weights * losses).sum(1) / weights.sum(1).clamp(min=1e-12)
        size = torch.full_like(per_anchor[:1], len(per_anchor))
        total, anchors = global_sum(torch.cat([per_anchor.sum(0, keepdim=True), size]))
        return total / anchors

    def denominator(self, centers: Tensor, keys: Tensor, batch: ContrastiveBatch) -> Tensor:
        """Logarithm (A, 1) of sum_k D_ik exp(row_ik)."""
        if self.gamma == 0:
            return centers.logsumexp(1, keepdim=True)
        of_keys = log_sum_exp(keys, batch.others) + math.log(self.gamma)
        return torch.logaddexp(centers.logsumexp(1, keepdim=True), of_keys)
