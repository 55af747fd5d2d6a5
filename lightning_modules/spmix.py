"""SPMix: contrastive learning of anchors whose patches are mixed with those of partners."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.contrastive import ContrastiveClassifier, views
from lightning_modules.errors import ModelError
from lightning_modules.losses.contrast import Contrast
from lightning_modules.mixes.spmix import PatchMix, blend
from lightning_modules.networks.contrastive import ContrastiveNetwork


class SPMix(ContrastiveClassifier):
    """SPMix: contrastive learning with saliency-guided mixing of patches.

    https://arxiv.org/abs/2406.10801

    Needs batches of :class:`datamodules.samplers.Paired` in two views. In each view every anchor
    is mixed with its partner, by the map of that view, and keeps its label; the rest is contrastive
    learning of the anchors. Validation and test see images as they are.

    The paper has a key network and the supervised contrastive loss, and does not describe the
    classifier. The only public code (https://github.com/Yancy10-1/SPMix) is that of the journal
    version, TailBoost (Sensors 26(11), 3343, 2026): GPaCo's loss with class centres, no key
    network, and a classifier of the mixed first views.

    Args:
        network: Encoder, classifier and projector; the encoder is a
            :class:`~lightning_modules.networks.HybridViT`.
        contrastive: Contrastive loss, as for :class:`ContrastiveClassifier`.
        mix: Mixing of anchors and partners.
        classify: Anchors that train the classifier: ``mixed``, or ``clean``, as they are at test;
            the latter takes another pass of the encoder.
        mixed_views: Views that are mixed: ``both``, or the ``second`` alone, so that clean queries
            are compared with mixed keys.
        soft_label: Whether ``criterion`` gets the labels of anchor and partner, weighted by the
            mean ratio, in place of the anchor's label.
        **kwargs: As for :class:`ContrastiveClassifier`.

    Raises:
        ModelError: ``soft_label`` has no criterion, or clean anchors, whose label is their own.
    """

    mix: PatchMix
    mixes = True  # in ``compare``

    def __init__(
        self,
        network: ContrastiveNetwork,
        contrastive: nn.Module,
        mix: PatchMix,
        classify: Literal["mixed", "clean"] = "mixed",
        mixed_views: Literal["both", "second"] = "both",
        soft_label: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, contrastive, mix=mix, **kwargs)
        if soft_label and (self.criterion is None or classify == "clean"):
            raise ModelError(
                "soft_label needs a criterion that is trained on mixes: set model.criterion and "
                "leave out model.classify."
            )
        self.classify, self.mixed_views, self.soft_label = classify, mixed_views, soft_label

    def anchors(self, view: dict[str, Tensor]) -> Tensor:
        return view["label"][::2]

    def encode(self, network: Any, view: dict[str, Tensor]) -> Tensor:
        return self.mix.encode(network.encoder, view)

    def with_ratio(self, view: dict[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
        """A view with the ``ratio`` (n, h, w) of its n pairs, 1 for those that are not chosen."""
        if len(view["label"]) % 2:
            raise ModelError(
                "SPMix takes images in pairs: make data.batch_size a multiple of twice the number "
                "of processes."
            )
        return self.mix(view, self.mix.grid(self.network.encoder, view), chosen)

    def compare(
        self, first: dict[str, Tensor], second: dict[str, Tensor]
    ) -> tuple[Contrast, Tensor]:
        chosen = self.mix.choose(self.anchors(first))  # a pair is mixed in both views, or in none
        of_first = chosen if self.mixed_views == "both" else torch.zeros_like(chosen)
        mixes = self.with_ratio(first, of_first), self.with_ratio(second, chosen)
        contrast, keys = super().compare(*mixes)
        if self.classify == "clean":
            contrast.logits = self.clean_logits(first, second)
        if self.soft_label:
            labels = F.one_hot(first["label"], contrast.logits.shape[1]).float()
            contrast.target = blend(labels, mixes[0]["ratio"].mean((1, 2))[:, None])
        return contrast, keys

    def clean_logits(self, first: dict[str, Tensor], second: dict[str, Tensor]) -> Tensor:
        """Logits of the anchors as they are, of both views where both are anchors."""
        network: Any = self.network
        classified = [first] if self.momentum is not None else [first, second]
        images = torch.cat([view["image"][::2] for view in classified])
        return self.logits(network.encode(images))

    def mixed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        label = self.anchors(batch)
        batch = self.with_ratio(batch, torch.ones_like(label, dtype=torch.bool))
        return self.logits(self.encode(self.network, batch)), label

    def mixtures(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The pairs of the first view to be looked at, with their ``map`` and ``ratio``."""
        first = views(batch, 2, check=True)[0]
        if self.mix.guide in first:
            first = first | {"map": first[self.mix.guide]}
        return self.with_ratio(first, self.mix.choose(self.anchors(first)))
