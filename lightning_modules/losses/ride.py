"""Loss of RIDE: experts with margins, rewarded for differing from their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.losses.distributed import global_sum
from lightning_modules.losses.experts import ExpertsLoss
from lightning_modules.losses.ldam import LDAMLoss
from lightning_modules.losses.sample_loss import as_counts, at_least_float32


class RIDELoss(ExpertsLoss):
    """RIDE's loss of experts (https://arxiv.org/abs/2010.01809, section 3), without the router.

    The sum over the experts e of :class:`~lightning_modules.losses.LDAMLoss` and of the diversity
    loss -lambda mean(T)^2 KL(q || p_e), with p_e = softmax(z_e / T) and q = softmax(z / T), where z
    is the mean of the experts' logits, without gradient. The temperatures T_c of the classes are
    alpha in the first phase; then they are proportional to gamma K pi_c + 1 - gamma, with the
    maximum alpha, so that experts differ more about rare classes.

    This is the published code (https://github.com/frank-xwang/RIDE-LongTailRecognition). The paper
    has the divergence from each other expert in place of q, and T_c with another scale. Its second
    stage, a router that leaves out experts for easy images, saves time, not errors, and is left
    out.

    Args:
        class_counts: Training images per class; the command line takes them from the data. Equal
            counts give all classes the temperature alpha.
        diversity: Weight lambda of the diversity loss, at least 0; 0 trains the experts apart. The
            published code has 0.2, and 0.45 for CIFAR-100.
        temperature: Largest temperature alpha, greater than 0.
        gamma: Difference of the temperatures, in [0, 1); 0 gives all classes the temperature
            alpha. The published code has 0.05, for ImageNet-LT 0.02 and for iNaturalist 0.015.
        **kwargs: As for :class:`~lightning_modules.losses.LDAMLoss`.

    Attributes:
        reweighting: Phase of weights and temperatures, in [0, 1]: 0 for the first and 1, the
            initial value, for the second. :class:`callbacks.Anneal` may step it.

    Shape:
        Logits (E, B, K), labels (B,) or soft labels (B, K).

    Raises:
        ModelError: ``diversity``, ``temperature`` or ``gamma`` is out of range.

    Examples:
        >>> logits = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])  # two experts, one image
        >>> RIDELoss([80, 20], max_margin=0, diversity=0)(logits, torch.tensor([0]))
        tensor(0.8201)
        >>> RIDELoss([80, 20], max_margin=0)(logits, torch.tensor([0]))  # rewarded for differing
        tensor(0.7836)
    """

    ratio: Tensor

    def __init__(
        self,
        class_counts: Sequence[int],
        diversity: float = 0.2,
        temperature: float = 1.0,
        gamma: float = 0.05,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if diversity < 0 or temperature <= 0 or not 0 <= gamma < 1:
            raise ModelError(
                f"diversity={diversity}, temperature={temperature} and gamma={gamma} are out of "
                "range: set at least 0, greater than 0, and in [0, 1)."
            )
        self.ldam = LDAMLoss(class_counts=class_counts, **kwargs)
        self.diversity = diversity
        self.temperature = temperature
        counts = as_counts(class_counts)
        ratio = gamma * counts / counts.mean() + 1 - gamma
        self.register_buffer("ratio", (ratio / ratio.max()).float(), persistent=False)

    @property
    def reweighting(self) -> float:
        """The phase, in [0, 1]: 0 for the first and 1 for the second."""
        return self.ldam.reweighting

    @reweighting.setter
    def reweighting(self, phase: float) -> None:
        self.ldam.reweighting = phase

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        logits = at_least_float32(logits)
        experts = len(logits)
        repeated = target.repeat(experts, *[1] * (target.ndim - 1))
        classification = experts * self.ldam(logits.flatten(0, 1), repeated)
        return classification - self.diversity * self.divergence(logits)

    def divergence(self, logits: Tensor) -> Tensor:
        """mean(T)^2 times the sum over the experts of KL(q || p_e), for logits (E, B, K)."""
        phase = self.reweighting
        temperature = self.temperature * (1 - phase + phase * self.ratio.to(logits.dtype))
        q = (logits.detach().mean(0) / temperature).log_softmax(1)
        p = (logits / temperature).log_softmax(2)
        divergence = (q.exp() * (q - p)).sum(2)  # (E, B)
        images = divergence.new_tensor(float(logits.shape[1]))
        total, size = global_sum(torch.stack([divergence.sum(), images]))
        return temperature.mean() ** 2 * total / size
