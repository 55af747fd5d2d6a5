"""Label distribution disentangling loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.losses.distributed import gather, global_sum
from lightning_modules.losses.logit_adjusted import LogitAdjustedLoss
from lightning_modules.losses.sample_loss import as_counts, at_least_float32, expectation


class LADELoss(LogitAdjustedLoss):
    """Label distribution disentangling loss, LADE (https://arxiv.org/abs/2012.00321).

    Balanced softmax plus alpha times a regularized Donsker-Varadhan bound, LADER, whose optimum is
    z_c = log(p_u(x | c) / p_u(x)) under a uniform prior p_u:

    sum_c pi_c (-mean_{i: y_i = c} z_ic + log E_c + lambda (log E_c)^2), where pi_c = N_c / N and
    E_c = (1/B) sum_i e^{z_ic} / (K pi_{y_i}) estimates the mean of e^{z_c} under p_u by importance
    sampling from the global batch of B. The logits of the network decide, as if all classes were
    equally frequent. For another target distribution p_t, add log p_t(c) to them.

    The published code divides by the prior of the logit's class, K pi_c, instead of that of the
    image's class y_i, which moves the optimum of LADER to log p(c | x) + log K, with the training
    prior. It also keeps log E_c of classes without images in the batch, which lowers the logits of
    rare classes; here they have no term. With equal counts and all classes in the batch it agrees.

    Args:
        class_counts: Training images per class, N_c; the command line takes them from the data.
        alpha: Weight of LADER, at least 0; published as 0.1, on iNaturalist 0.05. 0 gives balanced
            softmax.
        lambda_: Weight of the squares, at least 0; published as 0.1, on iNaturalist 0.5.
        **kwargs: As for :class:`SampleLoss`; ``weights`` weigh the balanced softmax only.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> LADELoss(class_counts=[80, 20])(logits, torch.tensor([0, 1]))
        tensor(0.4332)
    """

    prior: Tensor

    def __init__(
        self,
        class_counts: Sequence[int],
        alpha: float = 0.1,
        lambda_: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(class_counts, tau=1.0, **kwargs)
        self.alpha = alpha
        self.lambda_ = lambda_
        counts = as_counts(class_counts)
        self.register_buffer("prior", (counts / counts.sum()).float(), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        balanced_softmax = super().forward(logits, target)
        return balanced_softmax + self.alpha * self.regularizer(at_least_float32(logits), target)

    def regularizer(self, logits: Tensor, target: Tensor) -> Tensor:
        """LADER of logits (B, K) in float32 or better, a scalar."""
        prior = self.prior.to(logits.dtype)
        y = (F.one_hot(target, len(prior)) if target.ndim == 1 else target).to(logits.dtype)
        importance = expectation((1 / (len(prior) * prior)).expand(len(y), -1), target)
        largest = gather(logits.amax(0)[None]).amax(0)  # (K,), keeps exp from overflowing
        scaled = (importance[:, None] * (logits - largest).exp()).sum(0)
        total, count, scaled, size = global_sum(
            torch.stack([(y * logits).sum(0), y.sum(0), scaled, torch.ones_like(y).sum(0)])
        )
        log_mean = largest + (scaled / size).log()
        bound = -total / count.clamp(min=1e-12) + log_mean + self.lambda_ * log_mean**2
        return (prior * bound * (count > 0)).sum()
