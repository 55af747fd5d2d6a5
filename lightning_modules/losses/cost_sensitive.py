"""Costs of mistakes, in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.losses.class_balanced import InverseFrequency
from lightning_modules.losses.cross_entropy import CrossEntropyLoss
from lightning_modules.losses.sample_loss import ClassWeights, SampleLoss

CostMatrix = Sequence[Sequence[float]]


class MistakeCosts(ClassWeights):
    """w_c = sum_k C[c, k]: what the mistakes on images of class c cost together.

    Args:
        costs: C (K, K), true by decided class.
    """

    def __init__(self, costs: CostMatrix) -> None:
        self.costs = as_matrix(costs)

    def __call__(self, class_counts: Sequence[int]) -> Tensor:
        return self.costs.sum(1)


class CostSensitiveLoss(CrossEntropyLoss):
    """Cost-sensitive learning (CSL): cross-entropy weighted by what mistakes on a class cost.

    Without costs, those of CARE's table (https://arxiv.org/abs/2307.10036): 1 / N_c. The code of
    CARE sums these to 1; normalised by the batch, that is class-balanced cross-entropy.

    Args:
        costs: C (K, K), true by decided class; w_c = sum_k C[c, k]. None is 1 / N_c.
        **kwargs: As for :class:`SampleLoss`, but for ``weights``.
    """

    def __init__(self, costs: CostMatrix | None = None, **kwargs: Any) -> None:
        weights = InverseFrequency() if costs is None else MistakeCosts(costs)
        super().__init__(weights=weights, **kwargs)


class ExpectedCostLoss(SampleLoss):
    """What deciding at random by the probabilities costs, l_c = sum_k p_k C[c, k].

    The cost matrix is Elkan's (https://dl.acm.org/doi/10.5555/1642194.1642224), transposed. The
    loss is bounded, and a sample that is confidently wrong has almost no gradient: it suits a
    network that has been trained already.

    Args:
        costs: C (K, K), true by decided class; 1 off the diagonal gives 1 - p_c.
        **kwargs: As for :class:`SampleLoss`.
    """

    costs: Tensor

    def __init__(self, costs: CostMatrix, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("costs", as_matrix(costs).float(), persistent=False)

    def per_label(self, logits: Tensor) -> Tensor:
        # Not a matrix product, which mixed precision would compute in half.
        return (logits.softmax(1)[:, None] * self.costs).sum(2)  # (B, 1, K) * (K, K)


def as_matrix(costs: CostMatrix) -> Tensor:
    """Costs (K, K), float64; at least one of each row is positive, none negative."""
    matrix = torch.tensor(costs, dtype=torch.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ModelError(f"Costs must be K rows of K numbers, not of shape {tuple(matrix.shape)}.")
    if (matrix < 0).any() or (matrix.sum(1) == 0).any():
        raise ModelError("Costs must not be negative, and a mistake on each class must cost.")
    return matrix
