"""Focal loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_modules.losses.sample_loss import SampleLoss


class FocalLoss(SampleLoss):
    """Focal loss, l_c = -(1 - p_c)^gamma log p_c (https://arxiv.org/abs/1708.02002, eq. 4).

    The softmax form. The paper's detector and the focal loss of Cui et al. instead sum K binary
    losses on sigmoids and divide by the number of positives. The paper's alpha_c is ``weights``.

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
