"""SimSiam: self-supervised training of an encoder, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from lightning_modules.batches import Batch, views
from lightning_modules.errors import ModelError
from lightning_modules.learner import SPLITS, Learner
from lightning_modules.networks.simsiam import SimSiamNetwork


class SimSiam(Learner):
    """Simple siamese representation learning (https://arxiv.org/abs/2011.10566, eq. 1 to 4).

    The loss is (D(p1, z2) + D(p2, z1)) / 2, where D is the negative cosine similarity, z1 and z2
    are the embeddings of two views of an image, p1 and p2 what the predictor makes of them, and z
    has no gradient. SimSiam needs neither negative pairs nor a key network nor a queue, so that it
    works in small batches and with one network in memory; this is why it is the self-supervised
    method here. Needs batches of two :class:`datamodules.views.Views`.

    Labels are not used, not even to choose an epoch: the loss says nothing about the use of an
    encoder, since it is least, -1, if all embeddings are equal. Take the last epoch. Logs
    ``train/loss`` and ``train/spread``, see :func:`spread`, which falls from 1 towards 0 in such a
    collapse; in validation and test both are of the images, not augmented, and their mirror images.

    With several processes, batch norm sees the images of one process, unless
    ``trainer.sync_batchnorm`` is set, as in the published code. That code can keep the learning
    rate of the predictor (paper, table 1); here it decreases with that of the encoder.

    Args:
        network: Encoder, projector and predictor.
        *args: As for :class:`~lightning_modules.learner.Learner`.
        class_names: Names of the K classes, which are not used.
        **kwargs: As for :class:`~lightning_modules.learner.Learner`.
    """

    def __init__(
        self, network: SimSiamNetwork, *args: Any, class_names: Sequence[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.network = network
        self.metrics = nn.ModuleDict({split: Embeddings() for split in SPLITS})

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def compare(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (B,) of two views (B, 3, H, W), and the embeddings (B, D) of the first."""
        # One view after the other, so that batch norm sees one at a time.
        z1, z2 = self.network(first), self.network(second)
        p1, p2 = self.network.predictor(z1), self.network.predictor(z2)
        loss = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
        return loss, z1.detach()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        first, second = views(batch, 2, check=batch_idx == 0)
        losses, embedding = self.compare(first["image"], second["image"])
        loss = losses.mean()
        self.log_dict({"train/loss": loss, "train/spread": spread(embedding)})
        return loss

    def evaluate(self, batch: Batch, split: str) -> None:
        losses, embedding = self.compare(batch["image"], batch["image"].flip(-1))
        self.metric(split).update(embedding, batch["label"], batch["index"])
        self.loss(split).update(losses)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        raise ModelError(
            "This run trained an encoder without classes, which does not predict: start a "
            "classifier from it, as simsiam_stage2 does, and use its run."
        )


class Embeddings(Metric):
    """The embeddings of a split, and their :func:`spread`."""

    full_state_update = False
    index: list[Tensor]
    label: list[Tensor]
    embedding: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in ("index", "label", "embedding"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, embedding: Tensor, label: Tensor, index: Tensor) -> None:
        """Add a batch: embeddings (B, D), labels (B,) and the indices (B,) of the images."""
        self.index.append(index)
        self.label.append(label)
        self.embedding.append(embedding.float())

    def compute(self) -> dict[str, Tensor]:
        """``spread``, and sorted by ``index``: ``label`` (N,) and ``embedding`` (N, D)."""
        order = dim_zero_cat(self.index).argsort()
        embedding = dim_zero_cat(self.embedding)[order]
        return {
            "spread": spread(embedding),
            "index": dim_zero_cat(self.index)[order],
            "label": dim_zero_cat(self.label)[order],
            "embedding": embedding,
        }


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """D(p, z) = -cos(p, z) (B,) in [-1, 1] of rows (B, D), with no gradient to ``z``."""
    return -F.cosine_similarity(p.float(), z.detach().float(), dim=1)


def spread(embedding: Tensor) -> Tensor:
    """Mean standard deviation of the elements of normalized embeddings (N, D), times sqrt(D).

    The paper's diagnostic of a collapse (section 4.1), in units of its reference 1 / sqrt(D): 0 if
    all embeddings point in one direction, and 1 if they are an isotropic Gaussian's.

    Examples:
        >>> import torch
        >>> spread(torch.ones(8, 4))
        tensor(0.)
        >>> spread(torch.cat([torch.eye(4), -torch.eye(4)]))
        tensor(1.)
    """
    normalized = F.normalize(embedding.float(), dim=1)
    return normalized.std(0, correction=0).mean() * embedding.shape[1] ** 0.5
