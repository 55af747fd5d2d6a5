"""Class weights from class frequencies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.losses.sample_loss import ClassWeights, as_counts


class InverseFrequency(ClassWeights):
    """Class-balanced weights (CB), w_c = N / N_c.

    Examples:
        >>> InverseFrequency()([80, 20])
        tensor([1.2500, 5.0000], dtype=torch.float64)
    """

    def __call__(self, class_counts: Sequence[int]) -> Tensor:
        counts = as_counts(class_counts)
        return counts.sum() / counts


class EffectiveNumber(ClassWeights):
    """Inverse effective number of samples (ES), w_c = (1 - beta) / (1 - beta^N_c).

    https://arxiv.org/abs/1901.05555, section 3. The paper sums weights to K (``normalize: class``)
    and also defines sigmoid losses; Barata and Santiago divide them by their batch mean.

    Args:
        beta: Overlap of the samples, in [0, 1). 0 weighs all classes equally; the limit of 1 is
            inverse frequency. The paper uses 0.9 to 0.9999; None is Barata and Santiago's
            (N - 1) / N.

    Examples:
        >>> EffectiveNumber(beta=0.9)([80, 20])
        tensor([0.1000, 0.1138], dtype=torch.float64)
    """

    def __init__(self, beta: float | None = None) -> None:
        if beta is not None and not 0 <= beta < 1:
            raise ModelError(f"beta must be in [0, 1), not {beta}.")
        self.beta = beta

    def __call__(self, class_counts: Sequence[int]) -> Tensor:
        counts = as_counts(class_counts)
        total = counts.sum().item()
        gap = 1 / total if self.beta is None else 1 - self.beta
        log_beta = math.log1p(-gap) if gap < 1 else -math.inf
        return gap / -torch.expm1(counts * log_beta)
