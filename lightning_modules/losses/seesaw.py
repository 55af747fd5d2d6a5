"""Seesaw loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.losses.distributed import global_sum
from lightning_modules.losses.sample_loss import SampleLoss


class SeesawLoss(SampleLoss):
    """Seesaw loss (https://arxiv.org/abs/2008.10032): images push down rarer classes less.

    l_c = -log(e^{z_c} / (e^{z_c} + sum_{k != c} S_ck e^{z_k})) with S_ck = M_ck C_ck. Mitigation
    M_ck = min(1, (n_k / n_c)^p) spares class k if it is rarer than the label c, where n are the
    images of each class in all training batches so far, at least 1. Compensation
    C_ck = max(1, (sigma_k / sigma_c)^q), with softmax sigma, punishes a wrong class k that is more
    likely than the label. Both factors are constants in the gradient.

    As in the published code, sigma_c is at least ``eps`` in the quotient and n includes the present
    batch. The code counts in each process; here n is that of the global batches. The objectness
    branch of the paper's detector does not apply: every image shows a lesion.

    Args:
        class_counts: Training images per class; the command line takes them from the data. Only
            their number K is used.
        p: Exponent of the mitigation, at least 0; 0 is none.
        q: Exponent of the compensation, at least 0; 0 is none. p = q = 0 gives cross-entropy.
        eps: Smallest divisor of the quotient of probabilities, greater than 0.
        **kwargs: As for :class:`SampleLoss`.

    Attributes:
        seen: Training images per class (K,) so far, saved in checkpoints.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> SeesawLoss(class_counts=[80, 20])(logits, torch.tensor([0, 1]))
        tensor(0.2201)
    """

    seen: Tensor

    def __init__(
        self,
        class_counts: Sequence[int],
        p: float = 0.8,
        q: float = 2.0,
        eps: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(class_counts=class_counts, **kwargs)
        self.p = p
        self.q = q
        self.eps = eps
        self.register_buffer("seen", torch.zeros(len(class_counts)))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.training:
            y = F.one_hot(target, len(self.seen)) if target.ndim == 1 else target
            self.seen += global_sum(y.detach().to(self.seen.dtype).sum(0))
        return super().forward(logits, target)

    def per_label(self, logits: Tensor) -> Tensor:
        factors = self.log_mitigation().to(logits.dtype) + self.log_compensation(logits.detach())
        return (logits[:, None] + factors).logsumexp(2) - logits  # (B, label K, class K)

    def log_mitigation(self) -> Tensor:
        """Logarithms (K, K) of M, with labels in rows."""
        log_seen = self.seen.clamp(min=1).log()
        return self.p * (log_seen - log_seen[:, None]).clamp(max=0)

    def log_compensation(self, logits: Tensor) -> Tensor:
        """Logarithms (B, K, K) of C, with labels in rows; 0 on the diagonal."""
        log_sigma = logits.log_softmax(1)
        of_label = log_sigma[:, :, None].clamp(min=math.log(self.eps))
        return self.q * (log_sigma[:, None] - of_label).clamp(min=0)
