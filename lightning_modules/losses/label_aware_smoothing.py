"""Label-aware smoothing loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_modules.losses.sample_loss import SampleLoss, as_counts

Shape = Literal["concave", "linear", "convex", "exp"]


class LabelAwareSmoothingLoss(SampleLoss):
    """Label-aware smoothing (MiSLAS): cross-entropy that smooths frequent classes more.

    l_c = -(1 - eps_c) log p_c - eps_c / (K - 1) sum_{k != c} log p_k
    (https://arxiv.org/abs/2104.00466), where eps_c increases from ``tail`` for the class with the
    fewest images to ``head`` for the class with the most.

    Args:
        class_counts: Training images per class, N_c; the command line takes them from the data.
        head: Smoothing eps of the largest class, in [0, 1); ``head`` and ``tail`` 0 give
            cross-entropy.
        tail: Smoothing eps of the smallest class, in [0, 1).
        shape: Growth of eps with x = (N_c - min N) / (max N - min N): ``concave`` sin(pi x / 2),
            ``linear`` x, ``convex`` 1 - cos(pi x / 2), ``exp`` x^power.
        power: Exponent of the shape ``exp``.
        spread: Classes that share eps: the K - 1 ``others``, as in the paper, or ``all`` K, as in
            its code and in PyTorch's label smoothing, which equals ``others`` with
            eps (K - 1) / K.
        **kwargs: As for :class:`SampleLoss`.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> LabelAwareSmoothingLoss(class_counts=[80, 20])(logits, torch.tensor([0, 1]))
        tensor(0.5201)
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
    return (counts - counts.min()) / span.clamp(min=1)  # with equal counts, every class is the tail


def _grown(x: Tensor, shape: Shape, power: float) -> Tensor:
    """Growth of the smoothing, from 0 at x = 0 to 1 at x = 1."""
    shapes: dict[Shape, Callable[[Tensor], Tensor]] = {
        "concave": lambda x: torch.sin(math.pi / 2 * x),
        "linear": lambda x: x,
        "convex": lambda x: 1 - torch.cos(math.pi / 2 * x),
        "exp": lambda x: x**power,
    }
    return shapes[shape](x)
