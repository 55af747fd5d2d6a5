"""Label-aware smoothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_modules.losses.sample_loss import SampleLoss, as_counts

Shape = Literal["concave", "linear", "convex", "exp"]


class LabelAwareSmoothingLoss(SampleLoss):
    """Cross-entropy with labels smoothed the more, the more images a class has (MiSLAS).

    l_c = -(1 - eps_c) log p_c - eps_c / (K - 1) sum_{k != c} log p_k
    (https://arxiv.org/abs/2104.00466), with eps_c growing from ``tail`` at the class
    with the fewest images to ``head`` at that with the most.

    Args:
        class_counts: Training images per class, N_c.
        head: eps of the largest class, in [0, 1); 0 at both ends gives cross-entropy.
        tail: eps of the smallest class.
        shape: How eps grows with x = (N_c - min N) / (max N - min N): ``concave`` sin(pi x / 2),
            ``linear`` x, ``convex`` 1 - cos(pi x / 2), ``exp`` x^power.
        power: Of ``exp``.
        spread: ``others`` shares eps out among the K - 1 other classes, as the paper; ``all``
            among all K, as its code and PyTorch's label smoothing: that is eps (K - 1) / K.
        **kwargs: As for :class:`SampleLoss`.
    """

    smoothing: Tensor

    def __init__(
        self,
        class_counts: Sequence[int],
        head: float = 0.3,
        tail: float = 0.0,
        shape: Shape = "concave",
        power: float = 2.0,
        spread: Literal["others", "all"] = "others",
        **kwargs: Any,
    ) -> None:
        super().__init__(class_counts=class_counts, **kwargs)
        self.spread = spread
        grown = _grown(_share(as_counts(class_counts)), shape, power)
        epsilon = (tail + (head - tail) * grown).float()
        self.register_buffer("smoothing", epsilon, persistent=False)

    def per_label(self, logits: Tensor) -> Tensor:
        losses = -logits.log_softmax(1)
        total, num_classes = losses.sum(1, keepdim=True), losses.shape[1]
        if self.spread == "all":
            smooth = total / num_classes
        else:
            smooth = (total - losses) / (num_classes - 1)
        return losses + self.smoothing * (smooth - losses)


def _share(counts: Tensor) -> Tensor:
    span = counts.max() - counts.min()
    return (counts - counts.min()) / span.clamp(min=1)  # classes of one size all count as tail


def _grown(x: Tensor, shape: Shape, power: float) -> Tensor:
    """From 0 at x = 0 to 1 at x = 1."""
    shapes: dict[Shape, Callable[[Tensor], Tensor]] = {
        "concave": lambda x: torch.sin(math.pi / 2 * x),
        "linear": lambda x: x,
        "convex": lambda x: 1 - torch.cos(math.pi / 2 * x),
        "exp": lambda x: x**power,
    }
    return shapes[shape](x)
