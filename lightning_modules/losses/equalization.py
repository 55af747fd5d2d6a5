"""Equalisation losses: rare classes are not discouraged by the images of others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.losses.sample_loss import SampleLoss, as_counts


class EqualizationLoss(SampleLoss):
    """Equalisation loss (EQL) on sigmoids (https://arxiv.org/abs/2003.05176).

    The sum over classes of binary cross-entropies with weights 1 - E T_c (1 - y_c): a rare class,
    T_c = 1, does not learn from images of others. E is 1, as every image shows some lesion. The
    highest logit decides, as always; their softmax is no calibrated probability.

    Args:
        class_counts: Training images per class.
        threshold: A class with a share of the images below this is rare; 0 gives binary
            cross-entropy. The paper takes 0.00177 for the 1230 classes of LVIS; 0.04 calls akiec,
            vasc and df rare.
        **kwargs: As for :class:`SampleLoss`.
    """

    rare: Tensor

    def __init__(self, class_counts: Sequence[int], threshold: float = 0.04, **kwargs: Any) -> None:
        super().__init__(class_counts=class_counts, **kwargs)
        self.register_buffer("rare", _rare(class_counts, threshold), persistent=False)

    def per_label(self, logits: Tensor) -> Tensor:
        present, absent = F.softplus(-logits), F.softplus(logits)
        absent = absent * ~self.rare
        return present + absent.sum(1, keepdim=True) - absent


class SoftmaxEqualizationLoss(SampleLoss):
    """Softmax equalisation loss (SEQL) (https://arxiv.org/abs/2003.05176).

    l_c = -log(e^{z_c} / sum_k w_k e^{z_k}) with w_k = 1 - b_k T_k (1 - y_k): rare classes, T_k = 1,
    are left out of the sum where b_k = 1 and they are not the label.

    Args:
        class_counts: Training images per class.
        threshold: A class with a share of the images below this is rare; 0 gives cross-entropy.
            As for :class:`EqualizationLoss`.
        gamma: Probability of b_k = 1, drawn for every image and class; 0 gives cross-entropy. At 1
            images of other classes teach a rare class nothing.
        **kwargs: As for :class:`SampleLoss`.
    """

    rare: Tensor

    def __init__(
        self,
        class_counts: Sequence[int],
        threshold: float = 0.04,
        gamma: float = 0.9,
        **kwargs: Any,
    ) -> None:
        super().__init__(class_counts=class_counts, **kwargs)
        self.gamma = gamma
        self.register_buffer("rare", _rare(class_counts, threshold), persistent=False)

    def per_label(self, logits: Tensor) -> Tensor:
        left_out = self.rare & (torch.rand_like(logits) < self.gamma)  # (B, K)
        is_label = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
        summed = is_label | ~left_out[:, None]  # (B, label K, class K)
        kept = logits[:, None].masked_fill(~summed, -math.inf)
        return kept.logsumexp(2) - logits


def _rare(class_counts: Sequence[int], threshold: float) -> Tensor:
    counts = as_counts(class_counts)
    return counts / counts.sum() < threshold
