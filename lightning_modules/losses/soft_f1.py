"""A differentiable macro F1."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.losses.criterion import Criterion
from lightning_modules.losses.cross_entropy import CrossEntropyLoss
from lightning_modules.losses.distributed import global_sum
from lightning_modules.losses.sample_loss import at_least_float32


class SoftMacroF1Loss(Criterion):
    """1 - mean_c F_c over the classes of the global batch, F_c = 2 tp_c / (2 tp_c + fp_c + fn_c).

    Counts are sums of probabilities, tp_c = sum_j p_jc y_jc and so on, as in sigmoidF1
    (https://arxiv.org/abs/2108.10566), here of a softmax. Classes that do not occur in the batch
    are left out. The value depends on the batch size: the mean over batches is not the F1 of the
    data.

    Args:
        mu: Weight of the loss above when it is added to cross-entropy, at least 0; None leaves out
            cross-entropy. :class:`callbacks.Anneal` may increase it from 0.

    Shape:
        Logits (B, K) and labels (B,), or soft labels (B, K), to a scalar.

    Examples:
        >>> logits = torch.tensor([[9.0, 0.0], [0.0, 9.0]])
        >>> round(SoftMacroF1Loss()(logits, torch.tensor([0, 1])).item(), 3)
        0.0
    """

    def __init__(self, mu: float | None = None) -> None:
        super().__init__()
        self.mu = mu
        self.cross_entropy = CrossEntropyLoss()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        loss = 1 - self.macro_f1(at_least_float32(logits).softmax(1), target)
        return loss if self.mu is None else self.cross_entropy(logits, target) + self.mu * loss

    def macro_f1(self, p: Tensor, target: Tensor) -> Tensor:
        """Macro F1 of probabilities (B, K); one-hot probabilities give the usual macro F1."""
        y = (F.one_hot(target, p.shape[1]) if target.ndim == 1 else target).to(p.dtype)
        tp, predicted, true = global_sum(torch.stack([(p * y).sum(0), p.sum(0), y.sum(0)]))
        present = true > 0
        f1 = 2 * tp / torch.where(present, predicted + true, 1)  # 2 tp + fp + fn
        return (f1 * present).sum() / present.sum()
