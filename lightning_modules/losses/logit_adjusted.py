"""Logit-adjusted loss; with tau = 1, balanced softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_modules.losses.sample_loss import SampleLoss, as_counts


class LogitAdjustedLoss(SampleLoss):
    """Logit-adjusted loss, LA; balanced softmax at tau = 1.

    Cross-entropy of z + tau log pi, with pi_c = N_c / N (https://arxiv.org/abs/2007.07314, eq. 10).
    The unadjusted logits z of the network then decide as if all classes were equally frequent. With
    tau = 1, the default, it is balanced softmax, also called Bal-Softmax, BSCE or PriorCE
    (https://arxiv.org/abs/2007.10740). Do not combine it with class-balanced sampling, which makes
    the prior uniform.

    Args:
        class_counts: Training images per class, N_c; the command line takes them from the data.
            Equal counts give cross-entropy.
        tau: Strength of the adjustment, at least 0; 0 gives cross-entropy.
        **kwargs: As for :class:`SampleLoss`.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> LogitAdjustedLoss(class_counts=[80, 20])(logits, torch.tensor([0, 1]))
        tensor(0.4691)
    """

    adjustment: Tensor

    def __init__(self, class_counts: Sequence[int], tau: float = 1.0, **kwargs: Any) -> None:
        super().__init__(class_counts=class_counts, **kwargs)
        counts = as_counts(class_counts)
        log_prior = (counts / counts.sum()).log()
        self.register_buffer("adjustment", (tau * log_prior).float(), persistent=False)

    def per_label(self, logits: Tensor) -> Tensor:
        return -(logits + self.adjustment).log_softmax(1)
