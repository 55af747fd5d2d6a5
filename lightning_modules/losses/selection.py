"""Base class of self-paced learning and hard example mining."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.losses.cross_entropy import CrossEntropyLoss
from lightning_modules.losses.sample_loss import SampleLoss, at_least_float32, expectation


class SelectedLoss(SampleLoss):
    """Loss of selected samples of the global batch, (1/M) sum_j v_j w_j l_j with v_j 0 or 1.

    Samples are always selected by cross-entropy, so that thresholds are comparable between losses
    of different scales, such as focal loss. An empty selection has loss 0 and gradient 0.

    Args:
        loss: Loss of the selected samples, without weights of its own: pass ``weights`` here.
            None is cross-entropy.
        average: Divisor of the sum. ``all`` is the number of samples M in the batch, as Barata and
            Santiago write, so that steps shrink with the selection; ``selected`` is the number of
            selected samples.
        **kwargs: As for :class:`SampleLoss`.
    """

    def __init__(
        self,
        loss: SampleLoss | None = None,
        average: Literal["all", "selected"] = "all",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.loss, self.average = loss or CrossEntropyLoss(), average
        if self.loss.class_weights is not None:
            raise ModelError(f"Pass the weights to {type(self).__name__}, not to its loss.")

    @abstractmethod
    def select(self, losses: Tensor) -> Tensor:
        """Select samples by their cross-entropies (B,); returns booleans (B,)."""

    def per_label(self, logits: Tensor) -> Tensor:
        return self.loss.per_label(logits)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        cross_entropy = -at_least_float32(logits.detach()).log_softmax(1)
        selected = self.select(expectation(cross_entropy, target))
        # Multiplied, not indexed: a process without selected samples must still run backward.
        losses = selected * self.per_sample(logits, target)
        return self.mean(losses, target, among=selected if self.average == "selected" else None)
