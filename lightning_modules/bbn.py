"""BBN: two branches, from the natural to the reversed class distribution."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_modules.batches import Batch, pairs
from lightning_modules.classifier import DiagnosticLearner
from lightning_modules.errors import ModelError
from lightning_modules.losses.criterion import Criterion
from lightning_modules.networks.bbn import BBNNetwork


class BBN(DiagnosticLearner):
    """Bilateral-branch network (https://arxiv.org/abs/1912.02413, eq. 1 to 3).

    Needs batches of :class:`datamodules.samplers.Bilateral`: even rows of the natural and odd rows
    of the reversed distribution. The loss is alpha l(z, y_c) + (1 - alpha) l(z, y_r), where
    alpha = 1 - (t / T)^2 decreases with epoch t.

    In the published code (https://github.com/Megvii-Nanjing/BBN) an epoch shows every image once
    and as many of the reversed distribution; here it shows half as many of each. Its ResNet-50
    starts from random weights, and its learning rate decreases in steps.

    Args:
        network: Network with two branches.
        criterion: Loss of logits (B, K) for labels (B,).
        horizon: Length T of the schedule as a multiple of the number of epochs; the published code
            trains 90 of 100 epochs.
        **kwargs: As for :class:`~lightning_modules.classifier.DiagnosticLearner`.
    """

    network: BBNNetwork

    def __init__(
        self,
        network: BBNNetwork,
        criterion: Criterion | nn.CrossEntropyLoss,
        horizon: float = 10 / 9,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.criterion = criterion
        self.horizon = horizon

    @property
    def alpha(self) -> float:
        """Weight of the conventional branch in this epoch, from 1 towards 0."""
        epochs = self.trainer.max_epochs
        if epochs is None or epochs < 1:
            raise ModelError("BBN changes its branches by the epoch: set trainer.max_epochs.")
        return 1 - (self.current_epoch / (self.horizon * epochs)) ** 2

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        natural, reversed_ = pairs(batch, "natural and reversed", self.sampler)
        alpha = self.alpha
        logits = self.network.mixed(natural["image"], reversed_["image"], alpha)
        loss = alpha * self.criterion(logits, natural["label"])
        loss = loss + (1 - alpha) * self.criterion(logits, reversed_["label"])
        self.log("train/loss", loss)
        return loss
