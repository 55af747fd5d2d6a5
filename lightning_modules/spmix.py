"""SPMix: contrastive learning of rare lesions in front of the backgrounds of frequent ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_modules.contrastive import ContrastiveClassifier, views
from lightning_modules.mixes.spmix import PatchMix
from lightning_modules.networks.contrastive import ContrastiveNetwork


class SPMix(ContrastiveClassifier):
    """SPMix: contrastive learning with saliency-guided mixing of patches.

    https://arxiv.org/abs/2406.10801

    Needs batches of :class:`datamodules.samplers.Paired` in two views. In each view every anchor
    is mixed with its partner, by the saliency of that view, and keeps its label; from there on it
    is contrastive learning of the anchors. Validation and test see images as they are.

    The paper has a key network and the supervised contrastive loss beside a classifier. The
    published code (https://github.com/Yancy10-1/SPMix) has GPaCo: no key network, and a loss with
    class centres. It also classifies the second views by the features of the first, where here
    each view has its own, and has batch norm in the projector and a predictor behind it.

    Args:
        network: Its encoder is a :class:`~lightning_modules.networks.HybridViT`.
        contrastive: As for :class:`ContrastiveClassifier`.
        mix: How anchors and partners become one.
        **kwargs: As for :class:`ContrastiveClassifier`.
    """

    mix: PatchMix
    mixes = True  # in ``encode``

    def __init__(
        self, network: ContrastiveNetwork, contrastive: nn.Module, mix: PatchMix, **kwargs: Any
    ) -> None:
        super().__init__(network, contrastive, mix=mix, **kwargs)

    def encode(self, network: Any, view: dict[str, Tensor]) -> Tensor:
        return self.mix.encode(network.encoder, view)

    def anchors(self, view: dict[str, Tensor]) -> Tensor:
        return view["label"][::2]

    def mixtures(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The pairs of the first view, and the ``ratio`` (n, h, w) of each, to be looked at."""
        first = views(batch, 2, check=True)[0]
        grid = self.mix.grid(self.network.encoder, first)
        return first | {"ratio": self.mix.ratio(first, grid)}
