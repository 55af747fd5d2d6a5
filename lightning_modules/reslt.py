"""ResLT: residual learning for the rarer classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.batches import Batch
from lightning_modules.classifier import DiagnosticLearner
from lightning_modules.definitions import Shots
from lightning_modules.errors import ModelError
from lightning_modules.losses.criterion import Criterion
from lightning_modules.losses.distributed import global_sum
from lightning_modules.networks.reslt import ResLTNetwork


class ResLT(DiagnosticLearner):
    """ResLT (https://arxiv.org/abs/2101.10633, eq. 3 to 6).

    The branches are trained on nested sets of classes: all; medium and few; few. The cross-entropy
    of each branch is summed over the images of its classes, and the total is divided by the number
    of these images over all branches. Medium and few are the data set's groups of classes; in the
    published code they are 605 and 220 of the 1,000 classes of ImageNet-LT. That code trains from
    random weights, in batches of 256 images.

    Args:
        network: Network with three branches.
        criterion: Loss of the summed logits (B, K) for labels (B,).
        beta: Weight of the losses of the branches, in [0, 1]; 0 only trains the sum. The published
            code, whose README calls it alpha, has 0.99 for ImageNet-LT and 0.85 for iNaturalist.
        class_names: Names of the K classes; the command line takes them from the data.
        shots: Classes of the groups ``many``, ``medium`` and ``few``; the command line takes them
            from the data.
        **kwargs: As for :class:`~lightning_modules.classifier.DiagnosticLearner`.
    """

    network: ResLTNetwork
    trained: Tensor

    def __init__(
        self,
        network: ResLTNetwork,
        criterion: Criterion | nn.CrossEntropyLoss,
        beta: float = 0.99,
        class_names: Sequence[str] = (),
        shots: Shots | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, class_names=class_names, shots=shots, **kwargs)
        if not shots:
            raise ModelError(
                "ResLT needs groups of classes with many, medium and few images, which this task "
                "has not: describe them by `shots` in the data set's YAML file."
            )
        self.criterion = criterion
        self.beta = beta
        groups = (list(class_names), [*shots["medium"], *shots["few"]], shots["few"])
        trained = torch.tensor([[name in group for name in class_names] for group in groups])
        self.register_buffer("trained", trained, persistent=False)  # (3, K), by branch and class

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        branches = self.network.branches(batch["image"])
        fusion = self.criterion(branches.sum(0), batch["label"])
        loss = (1 - self.beta) * fusion + self.beta * self.individual(branches, batch["label"])
        self.log("train/loss", loss)
        return loss

    def individual(self, branches: Tensor, label: Tensor) -> Tensor:
        """The losses of the branches: logits (3, B, K) and labels (B,) to a scalar."""
        loss = partial(F.cross_entropy, target=label, reduction="none")
        losses = torch.stack([loss(logits) for logits in branches.float()])  # (3, B)
        trained = self.trained[:, label]  # (3, B)
        # Divided by the images of all processes, because Lightning averages their gradients.
        return global_sum((losses * trained).sum()) / global_sum(trained.sum().float())
