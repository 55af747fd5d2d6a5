"""Second stages of decoupled learning: adjust the classifier of a finished network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from torch import nn

from lightning_modules.classifier import Classifier
from lightning_modules.losses.criterion import Criterion
from lightning_modules.networks.network import Network, VectorNetwork


class SecondStage(Classifier):
    """Train an adjustment of the classifier of a finished network, which is frozen.

    Decoupling (https://arxiv.org/abs/1910.09217) learns the representation on the natural
    distribution, and then the classifier on a class-balanced one. The network is that of the first
    stage, in evaluation mode and without gradients; :class:`callbacks.WarmStart` with the target
    ``network.network`` loads its weights. Checkpoints hold them as well, so that the first stage
    is not needed to evaluate the second one.

    Args:
        network: Network of the first stage.
        criterion: Loss of logits (B, K) for labels (B,).
        *args: As for :class:`~lightning_modules.learner.Learner`.
        adjustment: Factory of the network around that of the first stage, from it and the number
            of classes: :class:`~lightning_modules.networks.NewHead` re-trains the classifier
            (cRT), :class:`~lightning_modules.networks.LearnableWeightScaling` scales its weights
            (LWS), :class:`~lightning_modules.networks.DisAlign` aligns its logits.
        class_names: Names of the K classes; the command line takes them from the data.
        **kwargs: As for :class:`~lightning_modules.classifier.Classifier`.

    Raises:
        ModelError: The classifier of ``network`` is not linear.
    """

    def __init__(
        self,
        network: VectorNetwork,
        criterion: Criterion | nn.CrossEntropyLoss,
        *args: Any,
        adjustment: Callable[[VectorNetwork, int], Network],
        class_names: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        network.requires_grad_(False)
        adjusted = adjustment(network, len(class_names))
        super().__init__(adjusted, criterion, *args, class_names=class_names, **kwargs)
        self.train()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.network.get_submodule("network").eval()
        return self
