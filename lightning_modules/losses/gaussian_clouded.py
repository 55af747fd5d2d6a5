"""Gaussian clouded logit adjustment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.losses.sample_loss import SampleLoss, as_counts


class GCLLoss(SampleLoss):
    """Gaussian clouded logit adjustment, GCL (https://arxiv.org/abs/2305.11733).

    Cross-entropy of the clouded logits z_k - s a delta_k |eps_k|. delta_k is log(max N) - log N_k,
    divided by its largest value: 0 for the most frequent class and 1 for the rarest. eps_k is drawn
    anew for each image and class. The cloud of a rare class lowers its logit in training, so that
    its images saturate the softmax later.

    As in the published code, eps has standard deviation 1/3 and is clamped to [-1, 1]. The paper's
    logits z_k = s cos(w_k, f) are those of a cosine classifier, such as
    :class:`~lightning_modules.networks.CosineHead`. The code multiplies cosines by s within the
    loss; here the classifier does, once, and the loss multiplies the clouds only. The paper's
    second stage retrains the classifier on a class-balanced distribution.

    Args:
        class_counts: Training images per class, N_c; the command line takes them from the data.
            Equal counts give cross-entropy.
        amplitude: Largest adjustment a, as a difference of cosines, at least 0: 0.5 for CIFAR and 1
            for Places in the published code. 0 gives cross-entropy.
        scale: Scale s of the cosines, greater than 0: set that of the classifier.
        **kwargs: As for :class:`SampleLoss`.

    Raises:
        ModelError: ``amplitude`` or ``scale`` is out of range.

    Examples:
        >>> cosines = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
        >>> loss = GCLLoss(class_counts=[80, 20], scale=30)
        >>> loss(30 * cosines, torch.tensor([0, 0])) < loss(30 * cosines, torch.tensor([1, 1]))
        tensor(True)
    """

    clouds: Tensor

    def __init__(
        self,
        class_counts: Sequence[int],
        amplitude: float = 0.5,
        scale: float = 30.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(class_counts=class_counts, **kwargs)
        if amplitude < 0 or scale <= 0:
            raise ModelError(
                f"amplitude={amplitude} and scale={scale} are out of range: set an amplitude of at "
                "least 0 and a scale greater than 0."
            )
        delta = as_counts(class_counts).log()
        delta = delta.max() - delta
        clouds = scale * amplitude * delta / delta.max().clamp(min=1e-12)
        self.register_buffer("clouds", clouds.float(), persistent=False)

    def noise(self, logits: Tensor) -> Tensor:
        """Draw |eps| in [0, 1] for logits (B, K)."""
        return (torch.randn_like(logits) / 3).abs().clamp(max=1)

    def per_label(self, logits: Tensor) -> Tensor:
        return -(logits - self.clouds * self.noise(logits)).log_softmax(1)
