"""Cross-entropy."""

from __future__ import annotations

from torch import Tensor

from lightning_modules.losses.sample_loss import SampleLoss


class CrossEntropyLoss(SampleLoss):
    """Cross-entropy, l_c = -log p_c, with class weights computed from ``class_counts``.

    Equals PyTorch's for hard labels. For soft labels PyTorch weighs each term,
    sum_c y_c w_c l_c / B, and does not normalize the weights.

    Args:
        **kwargs: Weights and their scale, as for :class:`SampleLoss`.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> CrossEntropyLoss()(logits, torch.tensor([0, 1]))
        tensor(0.2201)
    """

    def per_label(self, logits: Tensor) -> Tensor:
        return -logits.log_softmax(1)
