"""What contrastive classifiers share: two views, key network, queue."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_modules.classifier import Classifier
from lightning_modules.errors import ModelError
from lightning_modules.losses.contrast import Contrast
from lightning_modules.losses.distributed import gather
from lightning_modules.networks.contrastive import ContrastiveNetwork
from lightning_modules.networks.momentum_queue import MomentumQueue, follow


class ContrastiveClassifier(Classifier):
    """Compares two views of each image with each other and with a queue of earlier ones.

    Needs batches of :class:`datamodules.views.Views`. With a key network the first views are the
    anchors, and the key network, which follows by an exponential moving average after each
    optimizer step, embeds the second views without gradient, in training mode and with batch norm
    statistics of its own. Without one, all views are anchors and have a gradient. In both cases
    the second views enter the queue once the loss has been computed; where the network has a
    predictor, it is for the first views alone. Views pass the network one after the other, so that
    batch norm sees one view at a time.

    Args:
        network: Encoder, classifier and projector.
        contrastive: A :class:`~lightning_modules.losses.contrast.Contrast` to a scalar.
        criterion: Logits (B, K) and labels (B,) of the anchors to a scalar, which is added; None
            if ``contrastive`` trains the classifier, as PaCo's does.
        weight: Weight of ``contrastive`` in the sum.
        queue_size: Q; 0 is no queue.
        momentum: m, in [0, 1]; None is no key network.
        key_logits: Logits of the second views where they are anchors, which takes ``momentum``
            None: of their ``own`` features, or once more those of the first views (``query``). The
            latter is what SPMix's published code does; GPaCo's, on which it is built, does not.
        **kwargs: As for :class:`~lightning_modules.Classifier`.

    Raises:
        ModelError: ``key_logits`` is ``query`` with a key network, whose views have no logits.
    """

    mixes = False

    def __init__(
        self,
        network: ContrastiveNetwork,
        contrastive: nn.Module,
        criterion: nn.Module | None = None,
        weight: float = 1.0,
        queue_size: int = 0,
        momentum: float | None = None,
        key_logits: Literal["own", "query"] = "own",
        **kwargs: Any,
    ) -> None:
        super().__init__(network, criterion, **kwargs)  # type: ignore[arg-type]
        if momentum is not None and key_logits == "query":
            raise ModelError(
                "The views of a key network are not classified: leave out key_logits, or set "
                "momentum to null."
            )
        self.contrastive, self.weight, self.momentum = contrastive, weight, momentum
        self.key_logits = key_logits
        self.queue = MomentumQueue(queue_size, network.embedding)
        self.key_network: Any = None if momentum is None else network.key_network()

    def setup(self, stage: str) -> None:
        if self.momentum is not None:  # the network may have been given other weights
            given = self.network.state_dict()
            self.key_network.load_state_dict({k: given[k] for k in self.key_network.state_dict()})

    def on_train_start(self) -> None:
        halves = {torch.float16, torch.bfloat16}
        if self.momentum is not None and halves & {p.dtype for p in self.key_network.parameters()}:
            raise ModelError(
                "A key network would stand still in half precision: set trainer.precision to "
                "bf16-mixed, which keeps parameters in float32."
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        found: Any = super().configure_optimizers()
        if (momentum := self.momentum) is not None:
            optimizer = found["optimizer"] if isinstance(found, dict) else found
            # The optimizer's own step, which a gradient scaler skips where gradients overflow;
            # fused optimizers are called all the same.
            optimizer.register_step_post_hook(
                lambda *_: follow(self.key_network, self.network, momentum)
            )
        return found

    def encode(self, network: Any, view: dict[str, Tensor]) -> Tensor:
        """Features (A, C) of the anchors in a view, by the network or the key network."""
        return network.encode(view["image"])

    def anchors(self, view: dict[str, Tensor]) -> Tensor:
        """Labels (A,) of the rows of :meth:`encode`."""
        return view["label"]

    def logits(self, features: Tensor) -> Tensor:
        """Features (A, C) to the logits (A, K) that train the classifier."""
        return self.network.classify(features)  # type: ignore[operator]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        first, second = views(batch, 2, check=batch_idx == 0)
        contrast, keys = self.compare(first, second)
        loss = self.objective(contrast)
        self.remember(gather(keys), gather(self.anchors(second)))
        self.log("train/loss", loss)
        return loss

    def compare(
        self, first: dict[str, Tensor], second: dict[str, Tensor]
    ) -> tuple[Contrast, Tensor]:
        """The contrast of two views, and the embeddings (A, D) of the second ones."""
        network: Any = self.network
        label = torch.cat([self.anchors(first), self.anchors(second)])
        features = self.encode(network, first)
        queries = network.predict(features)
        if self.momentum is None:
            of_second = self.encode(network, second)
            keys = network.project(of_second)
            repeated = self.key_logits == "query"
            features = torch.cat([features, features if repeated else of_second])
        else:
            with torch.no_grad():
                keys = self.key_network.project(self.encode(self.key_network, second))
        contrast = Contrast.of_all(torch.cat([queries, keys]), label, self.logits(features))
        return contrast.beside(self.queue.embedding, self.queue.label), keys

    def remember(self, keys: Tensor, label: Tensor) -> None:
        """Keeps the embeddings (M, D) of all processes and their labels for later steps."""
        self.queue.enqueue(keys, label)

    def objective(self, contrast: Contrast) -> Tensor:
        loss: Tensor = self.weight * self.contrastive(contrast)
        if self.criterion is not None:
            loss = loss + self.criterion(contrast.logits, contrast.target)
        return loss


def views(batch: dict[str, Tensor], number: int, check: bool) -> list[dict[str, Tensor]]:
    """Cuts a batch of :class:`datamodules.views.Views` into its views.

    Args:
        batch: Name to the values (number B, ...) of all views, one view after the other.
        number: How many views it has.
        check: Whether to look if they are views of the same images, for which a GPU is waited for.

    Raises:
        ModelError: They are not.
    """
    parts = {name: value.chunk(number) for name, value in batch.items()}
    index = parts["index"]
    if check and not all(torch.equal(index[0], other) for other in index[1:]):
        raise ModelError(
            f"This method compares {number} views of each image: set data.train_transform to "
            f"datamodules.views.Views with {number} views."
        )
    return [{name: value[i] for name, value in parts.items()} for i in range(number)]
