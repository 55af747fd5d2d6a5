"""Losses with a cost for each kind of mistake."""

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
    """Weights w_c = sum_k C[c, k], the summed costs of all mistakes on class c.

    Args:
        costs: Cost matrix C (K, K), with true classes in rows and decided classes in columns.

    Examples:
        >>> MistakeCosts([[0, 1], [10, 0]])([80, 20])
        tensor([ 1., 10.], dtype=torch.float64)
    """

    def __init__(self, costs: CostMatrix) -> None:
        self.costs = as_matrix(costs)

    def __call__(self, class_counts: Sequence[int]) -> Tensor:
        return self.costs.sum(1)


class CostSensitiveLoss(CrossEntropyLoss):
    """Cost-sensitive learning (CSL): cross-entropy weighted by the costs of mistakes on a class.

    The default costs 1 / N_c are those of CARE's table (https://arxiv.org/abs/2307.10036). CARE's
    code scales them to sum to 1; normalized over the batch, the loss is class-balanced
    cross-entropy.

    Args:
        costs: Cost matrix C (K, K), with true classes in rows and decided classes in columns;
            w_c = sum_k C[c, k]. None uses 1 / N_c.
        **kwargs: As for :class:`SampleLoss`, without ``weights``.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> CostSensitiveLoss(costs=[[0, 1], [10, 0]])(logits, torch.tensor([0, 1]))
        tensor(0.2963)
    """

    def __init__(self, costs: CostMatrix | None = None, **kwargs: Any) -> None:
        weights = InverseFrequency() if costs is None else MistakeCosts(costs)
        super().__init__(weights=weights, **kwargs)


class ExpectedCostLoss(SampleLoss):
    """Expected cost of a decision sampled from the probabilities, l_c = sum_k p_k C[c, k].

    The cost matrix is Elkan's (https://dl.acm.org/doi/10.5555/1642194.1642224), transposed. The
    loss is bounded, and confidently wrong samples have almost no gradient, so use it to fine-tune
    a trained network.

    Args:
        costs: Cost matrix C (K, K), with true classes in rows and decided classes in columns; 1
            off the diagonal gives 1 - p_c.
        **kwargs: As for :class:`SampleLoss`.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> ExpectedCostLoss(costs=[[0, 1], [10, 0]])(logits, torch.tensor([0, 1]))
        tensor(1.4043)
    """

    costs: Tensor

    def __init__(self, costs: CostMatrix, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("costs", as_matrix(costs).float(), persistent=False)

    def per_label(self, logits: Tensor) -> Tensor:
        # Not a matrix product, which mixed precision would compute in half.
        return (logits.softmax(1)[:, None] * self.costs).sum(2)  # (B, 1, K) * (K, K)


def as_matrix(costs: CostMatrix) -> Tensor:
    """Check that costs are square, not negative, and positive somewhere in each row; float64."""
    matrix = torch.tensor(costs, dtype=torch.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ModelError(f"Costs have the shape {tuple(matrix.shape)}: set K rows of K numbers.")
    if (matrix < 0).any() or (matrix.sum(1) == 0).any():
        raise ModelError("Costs must not be negative: set at least one positive cost per class.")
    return matrix
