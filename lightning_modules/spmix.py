"""SPMix: contrastive learning of images with mixed patches."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.batches import Batch, pairs, views
from lightning_modules.contrastive import ContrastiveClassifier
from lightning_modules.errors import ModelError
from lightning_modules.losses.contrastive import ContrastiveBatch
from lightning_modules.losses.criterion import ContrastiveLoss
from lightning_modules.mixes.spmix import PatchMix, blend
from lightning_modules.networks.contrastive import ContrastiveNetwork


class SPMix(ContrastiveClassifier):
    """SPMix: contrastive learning with saliency-guided mixing of patches.

    https://arxiv.org/abs/2406.10801

    Needs batches of :class:`datamodules.samplers.Paired` in two views. In each view every anchor
    is mixed with its partner, guided by the map of that view, and keeps its label; the anchors are
    then compared by contrastive learning. Images are not mixed in validation and test.

    The paper has a key network and the supervised contrastive loss, and does not describe the
    classifier. The only public code (https://github.com/Yancy10-1/SPMix) is that of the journal
    version, TailBoost (Sensors 26(11), 3343, 2026): GPaCo's loss with class centers, no key
    network, and a classifier of the mixed first views.

    Args:
        network: Encoder, classifier and projector; the encoder is a
            :class:`~lightning_modules.networks.HybridViT`.
        contrastive: Contrastive loss.
        mix: Mix of anchors and partners.
        classify: Anchors that train the classifier: ``mixed``, or ``clean`` as in the test, which
            needs another pass through the encoder.
        mixed_views: Views that are mixed: ``both``, or only the ``second``, so that clean queries
            are compared with mixed keys.
        soft_label: Whether the criterion is trained on the labels of anchor and partner, weighted
            by the mean ratio, instead of the anchor's label.
        **kwargs: As for :class:`~lightning_modules.ContrastiveClassifier`.

    Raises:
        ModelError: ``soft_label`` is set without a criterion or with clean anchors.
    """

    def __init__(
        self,
        network: ContrastiveNetwork,
        contrastive: ContrastiveLoss,
        mix: PatchMix,
        classify: Literal["mixed", "clean"] = "mixed",
        mixed_views: Literal["both", "second"] = "both",
        soft_label: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, contrastive, **kwargs)
        self.mix = mix
        if soft_label and (self.criterion is None or classify == "clean"):
            raise ModelError(
                "soft_label needs a criterion that is trained on mixes: set model.criterion and "
                "leave out model.classify."
            )
        self.classify = classify
        self.mixed_views = mixed_views
        self.soft_label = soft_label

    def anchors(self, view: Batch) -> Tensor:
        return view["label"][::2]

    def encode(self, network: ContrastiveNetwork, view: Batch) -> Tensor:
        return self.mix.encode(network.encoder, view)

    def with_ratio(self, view: Batch, chosen: Tensor) -> Batch:
        """A view with the ``ratio`` (n, h, w) of its n pairs, which is 1 if not chosen."""
        pairs(view, "anchor and partner", self.sampler)
        return self.mix(view, self.mix.grid(self.network.encoder, view), chosen)

    def compare(self, first: Batch, second: Batch) -> tuple[ContrastiveBatch, Tensor]:
        chosen = self.mix.choose(self.anchors(first))  # a pair is mixed in both views or in none
        in_first = chosen if self.mixed_views == "both" else torch.zeros_like(chosen)
        mixes = self.with_ratio(first, in_first), self.with_ratio(second, chosen)
        compared, keys = super().compare(*mixes)
        if self.classify == "clean":
            compared.logits = self.clean_logits(first, second)
        if self.soft_label:
            labels = F.one_hot(first["label"], compared.logits.shape[1]).float()
            compared.target = blend(labels, mixes[0]["ratio"].mean((1, 2))[:, None])
        return compared, keys

    def clean_logits(self, first: Batch, second: Batch) -> Tensor:
        """Logits of the clean anchors: of both views without a key network, else of the first."""
        classified = [first] if self.momentum is not None else [first, second]
        images = torch.cat([view["image"][::2] for view in classified])
        return self.logits(self.network.encode(images))

    def mixed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        label = self.anchors(batch)
        batch = self.with_ratio(batch, torch.ones_like(label, dtype=torch.bool))
        return self.logits(self.encode(self.network, batch)), label

    def mixtures(self, batch: Batch) -> Batch:
        """The pairs of the first view with their ``map`` and ``ratio``, for figures."""
        first = views(batch, 2, check=True)[0]
        if self.mix.guide in first:
            first = first | {"map": first[self.mix.guide]}
        return self.with_ratio(first, self.mix.choose(self.anchors(first)))
