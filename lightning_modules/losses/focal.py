"""Focal loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.losses.sample_loss import SampleLoss


class FocalLoss(SampleLoss):
    """Focal loss, l_c = -(1 - p_c)^gamma log p_c (https://arxiv.org/abs/1708.02002, eq. 4).

    The softmax form; :class:`SigmoidFocalLoss` is that of the paper's detector. The paper's alpha_c
    is ``weights``.

    Args:
        gamma: Focusing exponent, at least 0. 0 gives cross-entropy; larger values reduce the
            weight of well-classified samples.
        **kwargs: As for :class:`SampleLoss`.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> FocalLoss(gamma=2.0)(logits, torch.tensor([0, 1]))
        tensor(0.0122)
    """

    def __init__(self, gamma: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gamma = gamma

    def per_label(self, logits: Tensor) -> Tensor:
        log_p = logits.log_softmax(1)
        # expm1 keeps 1 - p where p rounds to 1; the power of 0 has no gradient for gamma < 1.
        other = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
        return -(other**self.gamma) * log_p


class SigmoidFocalLoss(SampleLoss):
    """Focal loss on sigmoids, the sum of K binary focal losses per image.

    l_c = -(1 - p_c)^gamma log p_c - sum_{k != c} p_k^gamma log(1 - p_k), p_k = sigmoid(z_k), as in
    the paper's detector (https://arxiv.org/abs/1708.02002, eq. 4). The class-balanced focal loss of
    Cui et al. (https://arxiv.org/abs/1901.05555, section 4.3) is this loss with ``weights`` by
    :class:`EffectiveNumber` and ``normalize`` ``class``: all K terms of an image have the weight of
    its class. The highest logit decides; the softmax of the logits is not a calibrated probability.

    Args:
        gamma: Focusing exponent, at least 0. 0 gives binary cross-entropy.
        **kwargs: As for :class:`SampleLoss`.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> SigmoidFocalLoss(gamma=1.0)(logits, torch.tensor([0, 1]))
        tensor(0.3963)
    """

    def __init__(self, gamma: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gamma = gamma

    def per_label(self, logits: Tensor) -> Tensor:
        present, absent = F.softplus(-logits), F.softplus(logits)  # -log p and -log(1 - p)
        # Powers as exponentials have finite gradients for gamma < 1.
        of_label = (-self.gamma * absent).exp() * present
        of_others = (-self.gamma * present).exp() * absent
        return of_label + of_others.sum(1, keepdim=True) - of_others
