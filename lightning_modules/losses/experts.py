"""Losses of several experts: SADE and BalPoE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_modules.errors import ModelError
from lightning_modules.losses.cross_entropy import CrossEntropyLoss
from lightning_modules.losses.sample_loss import as_counts, at_least_float32


class ExpertsLoss(nn.Module):
    """Loss of the experts' logits (E, B, K) for labels (B,), or soft labels (B, K): a scalar."""


class AdjustedExpertsLoss(ExpertsLoss):
    """Mean over the experts e of the cross-entropy of z_e + a_e, over the global batch.

    Args:
        adjustment: Adjustments a (E, K) of the logits in training.
    """

    adjustment: Tensor

    def __init__(self, adjustment: Tensor) -> None:
        super().__init__()
        self.register_buffer("adjustment", adjustment.float()[:, None], persistent=False)
        self.cross_entropy = CrossEntropyLoss()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        experts = len(self.adjustment)
        if len(logits) != experts:
            raise ModelError(
                f"{type(self).__name__} trains {experts} experts, and the network has "
                f"{len(logits)}: set model.network.head.number to {experts}."
            )
        adjusted = at_least_float32(logits) + self.adjustment
        repeated = target.repeat(experts, *[1] * (target.ndim - 1))
        return self.cross_entropy(adjusted.flatten(0, 1), repeated)


class SADELoss(AdjustedExpertsLoss):
    """Sum of SADE's three losses (https://arxiv.org/abs/2107.09249, eq. 1 to 3).

    The forward expert has cross-entropy, the uniform expert the balanced softmax, which is
    :class:`~lightning_modules.losses.LogitAdjustedLoss` with tau 1, and the backward expert the
    inverse softmax: cross-entropy of z + log pi - lambda log pi', where pi' is the prior with the
    order of the classes by frequency reversed.

    Args:
        class_counts: Training images per class; the command line takes them from the data. Equal
            counts give three times the mean cross-entropy of the experts.
        backward: Weight lambda of the reversed prior, at least 0. 0 makes the backward expert a
            second uniform one; the published code has 2.

    Examples:
        >>> loss = SADELoss(class_counts=[80, 20])
        >>> loss(torch.zeros(3, 1, 2), torch.tensor([1]))
        tensor(6.4770)
    """

    def __init__(self, class_counts: Sequence[int], backward: float = 2.0) -> None:
        prior = as_counts(class_counts) / as_counts(class_counts).sum()
        log, reversed_ = prior.log(), reverse(prior).log()
        super().__init__(torch.stack([torch.zeros_like(log), log, log - backward * reversed_]))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return len(logits) * super().forward(logits, target)


class BalPoELoss(AdjustedExpertsLoss):
    """Mean of logit-adjusted losses (https://arxiv.org/abs/2206.05260, section 3).

    Expert e has :class:`~lightning_modules.losses.LogitAdjustedLoss` with tau_e, the paper's bias
    lambda_e = 1 - tau_e. The mean of the logits decides as if all classes were equally frequent if
    the mean of the tau_e is 1 and if the experts are calibrated, for which the paper uses mixup.

    Args:
        class_counts: Training images per class; the command line takes them from the data. Equal
            counts give cross-entropy.
        taus: Strength of the adjustment of each expert. [1] is logit adjustment. The published code
            has 0, 1, 2 for CIFAR, 0, 1.25, 2.5 for ImageNet-LT and -1, 1, 3 for iNaturalist.

    Examples:
        >>> loss = BalPoELoss(class_counts=[80, 20])
        >>> loss(torch.zeros(3, 1, 2), torch.tensor([1]))
        tensor(1.7119)
    """

    def __init__(self, class_counts: Sequence[int], taus: Sequence[float] = (0, 1, 2)) -> None:
        tau = torch.tensor(taus, dtype=torch.float64)
        prior = as_counts(class_counts) / as_counts(class_counts).sum()
        super().__init__(tau[:, None] * prior.log())


def reverse(prior: Tensor) -> Tensor:
    """The priors (K,) in reversed order: the rarest class gets that of the most frequent one."""
    ascending = prior.argsort(stable=True)
    reversed_ = torch.empty_like(prior)
    reversed_[ascending] = prior[ascending.flip(0)]
    return reversed_
