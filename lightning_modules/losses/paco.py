"""Parametric contrastive loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.losses.contrast import Contrast, log_sum_exp
from lightning_modules.losses.distributed import global_sum
from lightning_modules.losses.sample_loss import as_counts, at_least_float32


class PaCoLoss(nn.Module):
    """Parametric contrastive loss: class centres among the keys of a supervised contrastive loss.

    PaCo (https://arxiv.org/abs/2107.12028, eq. 4) and GPaCo (https://arxiv.org/abs/2209.12400). A
    row holds (z + log pi) / supt of the K centres, z being logits and pi_c = N_c / N, and the
    cosines over T of the N keys. With weights M of beta for the own centre and alpha for keys of
    the own class, and D of 1 for centres and gamma for keys, 0 for the anchor itself,
    L_i = -sum_j M_ij log(exp(row_ij) / sum_k D_ik exp(row_ik)) / sum_j M_ij.

    The centres' share of the positives is beta / (beta + alpha |P(i)|), so alpha goes with the size
    of the queue and the number of classes: with 7 classes the published 0.05 and a queue of 8,192
    leave the centre of the largest class 0.4 %.

    GPaCo's published code can also smooth the labels of the centres, which it does for balanced
    ImageNet alone; there is no such option here.

    Args:
        class_counts: Training images per class, N_c; the command line takes them from the data.
        alpha: Weight of a positive key; 0 with gamma 0 gives logit-adjusted cross-entropy.
        beta: Weight of the own centre; 0 with alpha 1 leaves centres in the denominator alone.
        gamma: Weight of a key in the denominator.
        temperature: T, by which cosines are divided.
        supt: By which the centres' logits are divided.

    Shape:
        A :class:`~lightning_modules.losses.contrast.Contrast` to a scalar, the mean over the
        anchors of the global batch, the same in all processes.
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
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.temperature, self.supt = temperature, supt
        counts = as_counts(class_counts)
        log_prior = (counts / counts.sum()).log().float()
        self.register_buffer("log_prior", log_prior, persistent=False)

    def forward(self, contrast: Contrast) -> Tensor:
        logits = at_least_float32(contrast.logits)
        centres = (logits + self.log_prior) / self.supt  # (A, K)
        keys = contrast.similarity(self.temperature)  # (A, N)
        losses = self.denominator(centres, keys, contrast) - torch.cat([centres, keys], dim=1)
        own_centre = F.one_hot(contrast.label, centres.shape[1]).to(losses.dtype)
        positives = contrast.positives.to(losses.dtype)
        weights = torch.cat([self.beta * own_centre, self.alpha * positives], dim=1)
        per_anchor = (weights * losses).sum(1) / weights.sum(1).clamp(min=1e-12)
        size = torch.full_like(per_anchor[:1], len(per_anchor))
        total, anchors = global_sum(torch.cat([per_anchor.sum(0, keepdim=True), size]))
        return total / anchors

    def denominator(self, centres: Tensor, keys: Tensor, contrast: Contrast) -> Tensor:
        """Logarithm (A, 1) of sum_k D_ik exp(row_ik)."""
        if self.gamma == 0:
            return centres.logsumexp(1, keepdim=True)
        of_keys = log_sum_exp(keys, contrast.others) + math.log(self.gamma)
        return torch.logaddexp(centres.logsumexp(1, keepdim=True), of_keys)
