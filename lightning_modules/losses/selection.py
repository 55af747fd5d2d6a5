"""What self-paced learning and hard example mining share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.losses.cross_entropy import CrossEntropyLoss
from lightning_modules.losses.sample_loss import SampleLoss, at_least_float32, expectation


class SelectedLoss(SampleLoss):
    """A loss of some samples of the global batch, (1/M) sum_j v_j w_j l_j with v_j 0 or 1.

    Samples are chosen by their cross-entropy, whatever loss they train: the scale of focal loss,
    say, would make thresholds incomparable. An empty selection has loss 0 and gradient 0.

    Args:
        loss: What the chosen samples train; None is cross-entropy. It is not
            weighted itself: ``weights`` are given here.
        average: ``all`` divides by the M samples of the batch, as Barata and Santiago write, so
            that steps shrink with the selection; ``selected`` by the number of the chosen.
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
            raise ModelError(f"Give the weights to {type(self).__name__}, not to its loss.")

    @abstractmethod
    def select(self, losses: Tensor) -> Tensor:
        """Which of the samples with these cross-entropies (B,) are trained: bool (B,)."""

    def per_label(self, logits: Tensor) -> Tensor:
        return self.loss.per_label(logits)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        cross_entropy = -at_least_float32(logits.detach()).log_softmax(1)
        chosen = self.select(expectation(cross_entropy, target))
        # Multiplied, not indexed: a process without chosen samples still has to run backward.
        losses = chosen * self.per_sample(logits, target)
        return self.mean(losses, target, among=chosen if self.average == "selected" else None)
