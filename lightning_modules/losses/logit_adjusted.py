"""Logit adjustment, in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_modules.losses.sample_loss import SampleLoss, as_counts


class LogitAdjustedLoss(SampleLoss):
    """Cross-entropy of z + tau log pi, with pi_c = N_c / N.

    https://arxiv.org/abs/2007.07314, eq. 10. The network's own logits z then decide as if classes
    were equally frequent. With tau 1 this is balanced softmax (https://arxiv.org/abs/2007.10740).
    Not to be combined with class-balanced sampling, whose prior is uniform.

    Args:
        class_counts: Training images per class, N_c; equal counts give cross-entropy.
        tau: 0 gives cross-entropy.
        **kwargs: As for :class:`SampleLoss`.
    """

    adjustment: Tensor

    def __init__(self, class_counts: Sequence[int], tau: float = 1.0, **kwargs: Any) -> None:
        super().__init__(class_counts=class_counts, **kwargs)
        counts = as_counts(class_counts)
        log_prior = (counts / counts.sum()).log()
        self.register_buffer("adjustment", (tau * log_prior).float(), persistent=False)

    def per_label(self, logits: Tensor) -> Tensor:
        return -(logits + self.adjustment).log_softmax(1)
