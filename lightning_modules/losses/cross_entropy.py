"""Cross-entropy."""

from __future__ import annotations

from torch import Tensor

from lightning_modules.losses.sample_loss import SampleLoss


class CrossEntropyLoss(SampleLoss):
    """Cross-entropy, l_c = -log p_c; PyTorch's, with weights made from ``class_counts``.

    PyTorch weighs the terms of a soft label, sum_c y_c w_c l_c / B, and does not normalise them.
    """

    def per_label(self, logits: Tensor) -> Tensor:
        return -logits.log_softmax(1)
