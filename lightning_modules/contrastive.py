"""Base of contrastive classifiers: two views, a key network and a queue."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_modules.batches import Batch, views
from lightning_modules.classifier import DiagnosticLearner
from lightning_modules.errors import ModelError
from lightning_modules.losses.contrastive import ContrastiveBatch
from lightning_modules.losses.criterion import ContrastiveLoss, Criterion
from lightning_modules.losses.distributed import gather
from lightning_modules.networks.contrastive import ContrastiveNetwork
from lightning_modules.networks.momentum_queue import MomentumQueue, follow


class ContrastiveClassifier(DiagnosticLearner):
    """Compare two views of each image with each other and with a queue of earlier views.

    Needs batches of :class:`datamodules.views.Views`. With a key network the first views are the
    anchors. The key network is an exponential moving average, updated after each optimizer step; it
    embeds the second views without gradient, in training mode and with its own batch norm
    statistics. Without a key network all views are anchors and have a gradient. In both cases the
    second views enter the queue after the loss has been computed, and a predictor, if the network
    has one, is only applied to the first views. Views pass the network one after the other, so that
    batch norm sees one view at a time.

    Args:
        network: Encoder, classifier and projector.
        contrastive: Contrastive loss.
        criterion: Loss of the anchors' logits (B, K) for labels (B,), which is added; None if the
            contrastive loss trains the classifier, as PaCo's does.
        weight: Weight of the contrastive loss, at least 0; that of the criterion is 1.
        queue_size: Number of keys Q in the queue, at least 0; 0 is no queue.
        momentum: Momentum m of the key network, in [0, 1]; None is no key network.
        key_logits: Logits of the second views when they are anchors, that is without a key network:
            those of their ``own`` features, or those of the first views again (``query``). SPMix's
            published code has the latter; GPaCo's, on which it is built, has the former.
        **kwargs: As for :class:`~lightning_modules.classifier.DiagnosticLearner`.

    Raises:
        ModelError: ``key_logits`` is ``query`` with a key network, whose views have no logits.
    """

    network: ContrastiveNetwork
    key_network: ContrastiveNetwork | None

    def __init__(
        self,
        network: ContrastiveNetwork,
        contrastive: ContrastiveLoss,
        criterion: Criterion | nn.CrossEntropyLoss | None = None,
        weight: float = 1.0,
        queue_size: int = 0,
        momentum: float | None = None,
        key_logits: Literal["own", "query"] = "own",
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        if momentum is not None and key_logits == "query":
            raise ModelError(
                "The views of a key network are not classified: leave out model.key_logits, or set "
                "model.momentum to null."
            )
        self.criterion = criterion
        self.contrastive = contrastive
        self.weight = weight
        self.momentum = momentum
        self.key_logits = key_logits
        self.queue = MomentumQueue(queue_size, network.embedding)
        self.key_network = None if momentum is None else network.key_network()

    def setup(self, stage: str) -> None:
        if self.key_network is not None:  # the network may have received other weights meanwhile
            state = self.network.state_dict()
            self.key_network.load_state_dict({k: state[k] for k in self.key_network.state_dict()})

    def on_train_start(self) -> None:
        halves = {torch.float16, torch.bfloat16}
        keys = [] if self.key_network is None else self.key_network.parameters()
        if halves & {p.dtype for p in keys}:
            raise ModelError(
                "The momentum update of the key network underflows in half precision: set "
                "trainer.precision to bf16-mixed, which keeps parameters in float32."
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        configured: Any = super().configure_optimizers()
        if (follower := self.key_network) is not None and (momentum := self.momentum) is not None:
            optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
            # A hook of the optimizer's step, because a gradient scaler skips the step when
            # gradients overflow. Fused optimizers are always called.
            optimizer.register_step_post_hook(lambda *_: follow(follower, self.network, momentum))
        return configured

    def encode(self, network: ContrastiveNetwork, view: Batch) -> Tensor:
        """Features (A, C) of the anchors in a view, by the network or the key network."""
        return network.encode(view["image"])

    def anchors(self, view: Batch) -> Tensor:
        """Labels (A,) of the rows of :meth:`encode`."""
        return view["label"]

    def logits(self, features: Tensor) -> Tensor:
        """Features (A, C) to the logits (A, K) that train the classifier."""
        return self.network.classify(features)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        first, second = views(batch, 2, check=batch_idx == 0)
        compared, keys = self.compare(first, second)
        loss = self.objective(compared)
        self.remember(gather(keys), gather(self.anchors(second)))
        self.log("train/loss", loss)
        return loss

    def compare(self, first: Batch, second: Batch) -> tuple[ContrastiveBatch, Tensor]:
        """The anchors and keys of two views, and the embeddings (A, D) of the second view."""
        label = torch.cat([self.anchors(first), self.anchors(second)])
        features = self.encode(self.network, first)
        queries = self.network.predict(features)
        if self.key_network is None:
            second_features = self.encode(self.network, second)
            keys = self.network.project(second_features)
            repeated = self.key_logits == "query"
            features = torch.cat([features, features if repeated else second_features])
        else:
            with torch.no_grad():
                keys = self.key_network.project(self.encode(self.key_network, second))
        embedding = torch.cat([queries, keys])
        compared = ContrastiveBatch.of_all(embedding, label, self.logits(features))
        return compared.beside(self.queue.embedding, self.queue.label), keys

    def remember(self, keys: Tensor, label: Tensor) -> None:
        """Add the embeddings (M, D) and labels (M,) of all processes to the queue."""
        self.queue.enqueue(keys, label)

    def objective(self, compared: ContrastiveBatch) -> Tensor:
        """The weighted sum of the contrastive loss and the criterion."""
        loss: Tensor = self.weight * self.contrastive(compared)
        if self.criterion is not None:
            loss = loss + self.criterion(compared.logits, compared.target)
        return loss
