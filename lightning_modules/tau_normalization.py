"""Tau-normalization of a finished network, with the tau that is best on the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_modules.batches import Batch
from lightning_modules.errors import ModelError
from lightning_modules.metrics import confusion_matrix, scores
from lightning_modules.networks.network import VectorNetwork
from lightning_modules.networks.tau_normalization import TauNormalized
from lightning_modules.one_pass import Untrained

TAUS = tuple(step / 10 for step in range(21))  # 0 to 2, as in the published code


class TauNormalization(Untrained):
    """Choose the tau of a tau-normalized classifier (https://arxiv.org/abs/1910.09217, section 4).

    Nothing is trained. In the validation of ``fit``, each tau of a grid classifies the validation
    split; that of the largest balanced accuracy is kept in the checkpoint, printed, and logged as
    ``val/tau``. Among equals the smallest tau is taken, which changes the classifier least. Other
    commands use this tau. :class:`callbacks.WarmStart` with the target ``network.network`` loads
    the weights of the first stage.

    Args:
        network: Network of the first stage, with a linear classifier.
        *args: As for :class:`~lightning_modules.learner.Learner`.
        taus: Grid of tau, each at least 0; 0 only leaves out the bias.
        **kwargs: As for :class:`~lightning_modules.classifier.DiagnosticLearner`.

    Raises:
        ModelError: The classifier is not linear, the grid is empty or negative, or several
            processes would each see a part of the images.
    """

    network: TauNormalized
    grid: Tensor

    def __init__(
        self, network: VectorNetwork, *args: Any, taus: Sequence[float] = TAUS, **kwargs: Any
    ) -> None:
        super().__init__(TauNormalized(network), *args, **kwargs)
        if not taus or min(taus) < 0:
            raise ModelError(f"model.taus={list(taus)} is no grid: set numbers of at least 0.")
        self.taus = sorted(taus)
        self.register_buffer("grid", torch.tensor(self.taus), persistent=False)
        self.seen: list[tuple[Tensor, Batch]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.zero_loss()

    def on_validation_epoch_start(self) -> None:
        self.seen = []
        super().on_validation_epoch_start()

    def evaluate(self, batch: Batch, split: str) -> None:
        if split == "val" and self.trainer.state.fn == "fit":
            logits = self.network.classified(batch["image"], self.grid)
            self.seen.append((logits, {key: batch[key] for key in ("label", "index")}))
        else:
            super().evaluate(batch, split)

    def on_validation_epoch_end(self) -> None:
        if self.seen:
            self.choose()
            self.seen = []
        super().on_validation_epoch_end()

    def choose(self) -> None:
        """Set tau by the logits of the validation split, and evaluate the split with it."""
        logits = torch.cat([logits for logits, _ in self.seen], dim=1)  # (T, B, K)
        batch = {key: torch.cat([b[key] for _, b in self.seen]) for key in ("label", "index")}
        accuracies = [balanced_accuracy(z, batch["label"]) for z in logits]
        best = accuracies.index(max(accuracies))  # the first of equals
        self.network.tau.copy_(self.grid[best])
        self.judge(logits[best], batch, "val")
        self.log("val/tau", self.network.tau)
        if not self.trainer.sanity_checking:
            self.print(
                f"tau {self.taus[best]:g}: balanced accuracy {accuracies[best]:.3f} on the "
                f"validation split, {accuracies[0]:.3f} at tau {self.taus[0]:g}."
            )


def balanced_accuracy(logits: Tensor, label: Tensor) -> float:
    """Balanced accuracy of the most likely classes by logits (B, K)."""
    classes = logits.shape[1]
    confusion = confusion_matrix(label, logits.argmax(1), classes)
    # In float32, which makes equal what differs only by the order of summation.
    return scores(confusion, [str(c) for c in range(classes)])["balanced_accuracy"].item()
