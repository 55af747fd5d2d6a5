"""Class weights of DisAlign."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_modules.losses.sample_loss import ClassWeights, as_counts


class GeneralizedReweight(ClassWeights):
    """Generalized re-weight of DisAlign (https://arxiv.org/abs/2103.16370), w_c = (N / N_c)^rho.

    Args:
        rho: Exponent, at least 0. 0 weighs all classes equally, 1 is inverse frequency. The
            published code has 1.2 for ImageNet-LT with ResNeXt-50.

    Examples:
        >>> GeneralizedReweight(rho=0.5)([80, 20])
        tensor([1.1180, 2.2361], dtype=torch.float64)
    """

    def __init__(self, rho: float = 1.2) -> None:
        self.rho = rho

    def __call__(self, class_counts: Sequence[int]) -> Tensor:
        counts = as_counts(class_counts)
        return (counts.sum() / counts) ** self.rho
