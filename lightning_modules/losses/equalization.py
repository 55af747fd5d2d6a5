"""Equalization losses: images of other classes do not push down rare classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.losses.sample_loss import SampleLoss, as_counts


class EqualizationLoss(SampleLoss):
    """Equalization loss (EQL) on sigmoids (https://arxiv.org/abs/2003.05176).

    The sum over classes of binary cross-entropies with weights 1 - E T_c (1 - y_c): rare classes,
    T_c = 1, do not learn from images of other classes. E is 1, because every image shows a lesion.
    The highest logit decides; the softmax of the logits is not a calibrated probability.

    Args:
        class_counts: Training images per class, N_c; the command line takes them from the data.
        threshold: Share of the training images, in [0, 1], below which a class is rare; 0 gives
            binary cross-entropy. The paper uses 0.00177 for the 1230 classes of LVIS; at 0.04,
            akiec, vasc and df are rare.
        **kwargs: As for :class:`SampleLoss`.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> EqualizationLoss(class_counts=[97, 3])(logits, torch.tensor([0, 1]))
        tensor(0.5667)
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
    """Softmax equalization loss (SEQL) (https://arxiv.org/abs/2003.05176).

    l_c = -log(e^{z_c} / sum_k w_k e^{z_k}) with w_k = 1 - b_k T_k (1 - y_k): rare classes, T_k = 1,
    are left out of the sum where b_k = 1 and they are not the label.

    Args:
        class_counts: Training images per class, N_c; the command line takes them from the data.
        threshold: Share of the training images, in [0, 1], below which a class is rare; 0 gives
            cross-entropy. See :class:`EqualizationLoss`.
        gamma: Probability of b_k = 1, in [0, 1], sampled for each image and class; 0 gives
            cross-entropy. At 1, rare classes learn from their own images only.
        **kwargs: As for :class:`SampleLoss`.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> loss = SoftmaxEqualizationLoss(class_counts=[97, 3], gamma=1.0)
        >>> loss(logits, torch.tensor([0, 1]))
        tensor(0.1566)
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
