"""The mixing of SPMix: patches of an anchor and of its partner, by where the lesions are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.errors import ModelError
from lightning_modules.networks.hybrid_vit import HybridViT

ROUNDING = 1e-6  # a map in [0, 1] of 255 levels that differs by less is constant


class PatchMix(nn.Module):
    """Mixing of SPMix: tokens of an anchor and its partner, with one ratio for every patch.

    In batches of :class:`datamodules.samplers.Paired` even rows are anchors x_1 and odd ones their
    partners x_2. The tokens of the mix are r f(x_1) + (1 - r) f(x_2) and its label is the anchor's.
    r is high where either image shows a lesion: lesions stay, backgrounds are exchanged. All images
    pass the convolutions together, so that batch norm sees one distribution.

    The ratio is made of a map of the lesion in four steps: noise, mean over each patch, min-max
    over the patches, floor and clip. The paper lists min-max and clip before the mean over patches;
    then few patches come near either end and r averages 0.3, so that the partner would be the
    larger part of most mixes. We follow the published code, where each ratio reaches from ``floor``
    to ``clip``. A constant map does not tell where the lesion is: its ratio is ``clip`` everywhere.

    Neither whether nor how much an image is mixed may tell its class: a network would learn that
    instead of lesions. So pairs are chosen without a look at their labels.

    Args:
        merge: How the maps of both images become one ratio: the ratio of their maximum (``maps``,
            the paper), the maximum of their ratios (``ratios``, the published code,
            https://github.com/Yancy10-1/SPMix), or the ratio of the anchor's map alone
            (``anchor``, an older version in that code).
        guide: Map that shows the lesion: the batch's ``saliency``, or the ``mask``, which is drawn
            by hand and so the best map there is.
        noise: Half width of the uniform noise on each pixel, in standard deviations of the map;
            0.5 in the code, of the data set's 0.137 in place of each map's own.
        floor: Smallest ratio. What min-max gives is scaled to [floor, 1]. At 0.5, as in the code,
            the anchor keeps at least half of every patch.
        clip: Largest ratio. At 1 the most salient patches are not mixed at all.
        probability: Share of the pairs that are mixed. The anchors of the others stay originals, in
            both of their views.

    Raises:
        ModelError: The encoder has no tokens, the batch lacks the map, or floor, clip and
            probability do not fit together.
    """

    def __init__(
        self,
        merge: Literal["maps", "ratios", "anchor"] = "maps",
        guide: Literal["saliency", "mask"] = "saliency",
        noise: float = 0.5,
        floor: float = 0.5,
        clip: float = 0.8,
        probability: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 <= floor <= clip <= 1:
            raise ModelError(f"A ratio from floor={floor} to clip={clip} is not within [0, 1].")
        if not 0 <= probability <= 1:
            raise ModelError(f"The probability of mixing is {probability}: set 0 to 1.")
        self.merge, self.guide, self.noise = merge, guide, noise
        self.floor, self.clip, self.probability = floor, clip, probability

    def choose(self, label: Tensor) -> Tensor:
        """Draws which anchors, with labels (n,), are mixed: booleans (n,)."""
        if self.probability in (0, 1):
            return torch.full_like(label, bool(self.probability), dtype=torch.bool)
        return torch.rand(len(label), device=label.device) < self.probability

    @torch.no_grad()
    def forward(
        self, view: dict[str, Tensor], grid: tuple[int, int], chosen: Tensor
    ) -> dict[str, Tensor]:
        """A view of n pairs, with the ``ratio`` (n, h, w) of its mixes.

        Args:
            view: ``image`` (2n, 3, H, W), the map of ``guide`` (2n, 1, H, W) and ``label`` (2n,).
            grid: Rows and columns (h, w) of the ratios.
            chosen: Which pairs (n,) are mixed; the ratio of the others is 1.
        """
        ratio = self.grid_ratio(view, grid).expand(-1, *grid)
        return view | {"ratio": torch.where(chosen[:, None, None], ratio, 1.0)}

    def grid(self, encoder: Any, view: dict[str, Tensor]) -> tuple[int, int]:
        """Rows and columns of the ratios of a view: those of the encoder's tokens."""
        if not isinstance(encoder, HybridViT):
            raise ModelError("SPMix mixes tokens: let its encoder be a networks.HybridViT.")
        return encoder.grid

    def encode(self, encoder: Any, view: dict[str, Tensor]) -> Tensor:
        """A view of n pairs with their ``ratio`` to the vectors (n, C) of the mixes."""
        tokens = encoder.tokens(view["image"])  # (2n, L, D), row by row
        return encoder.encode_tokens(blend(tokens, view["ratio"].flatten(1)[:, :, None]))

    def grid_ratio(self, view: dict[str, Tensor], grid: tuple[int, int]) -> Tensor:
        """Ratios (n, h, w) of all pairs, in [floor, clip]."""
        if self.guide not in view:
            raise ModelError(
                f"SPMix mixes by the {self.guide} of the images: set data.{self.guide}."
            )
        anchor, partner = view[self.guide].float().unflatten(0, (-1, 2)).unbind(1)
        if self.merge == "anchor":
            return self.of_map(anchor, grid)
        if self.merge == "maps":
            return self.of_map(torch.maximum(anchor, partner), grid)
        return torch.maximum(self.of_map(anchor, grid), self.of_map(partner, grid))

    def of_map(self, maps: Tensor, grid: tuple[int, int]) -> Tensor:
        """Maps (n, 1, H, W) to ratios (n, h, w)."""
        return self.scaled(F.adaptive_avg_pool2d(self.noisy(maps), grid)[:, 0])

    def noisy(self, maps: Tensor) -> Tensor:
        """Maps (n, 1, H, W) with uniform noise of ``noise`` standard deviations of each."""
        if not self.noise:
            return maps
        amplitude = self.noise * maps.flatten(1).std(1)
        return maps + amplitude[:, None, None, None] * (2 * torch.rand_like(maps) - 1)

    def scaled(self, maps: Tensor) -> Tensor:
        """Means over patches (n, h, w) to [floor, clip]."""
        low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
        constant = high - low < ROUNDING
        relative = torch.where(constant, 1.0, (maps - low) / (high - low))
        return (self.floor + (1 - self.floor) * relative).clamp(max=self.clip)


class FillingPatchMix(PatchMix):
    """Mixing to the letter of SPMix's paper: mixes fill each class to the size of the largest.

    Of an epoch in which all classes are equally frequent, the originals of class c, with N_c
    images, are N_c / N_max and the rest are mixes. This tells the network the class: images of the
    largest class are never mixed, those of the rarest nearly always, and no test image is.

    Args:
        class_counts: Training images (K,) per class; the command line takes them from the data.
        **kwargs: As for :class:`PatchMix`.
    """

    def __init__(self, class_counts: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        counts = torch.tensor(class_counts)
        self.originals: Tensor
        self.register_buffer("originals", counts / counts.max(), persistent=False)

    def choose(self, label: Tensor) -> Tensor:
        return torch.rand(len(label), device=label.device) >= self.originals[label]


class RandomPatchMix(PatchMix):
    """SPMix without saliency: the ratio of every patch is drawn evenly from [floor, clip].

    With a floor of 0.5 and a clip of 0.8 these are the shares of the published code's unused
    ``random_mixpatch_ratio``.
    """

    def grid_ratio(self, view: dict[str, Tensor], grid: tuple[int, int]) -> Tensor:
        image = view["image"]
        drawn = torch.rand(len(image) // 2, *grid, device=image.device)
        return self.floor + (self.clip - self.floor) * drawn


class SalientHalfMix(PatchMix):
    """The oldest version in SPMix's published code: the more salient half of the patches is kept.

    The ratio of the other half is drawn evenly from [floor, clip]. There the functions
    ``saliency_sortpatch`` and ``random_mixpatch_ratio`` are left, which nothing calls.
    """

    def of_map(self, maps: Tensor, grid: tuple[int, int]) -> Tensor:
        mean = F.adaptive_avg_pool2d(self.noisy(maps), grid)[:, 0]
        salient = mean >= mean.flatten(1).median(1).values[:, None, None]
        drawn = self.floor + (self.clip - self.floor) * torch.rand_like(mean)
        return torch.where(salient, 1.0, drawn)


class SaliencyMixup(PatchMix):
    """SPMix without patches: mixup of the images themselves, by the saliency of every pixel."""

    def grid(self, encoder: Any, view: dict[str, Tensor]) -> tuple[int, int]:
        height, width = view["image"].shape[-2:]
        return height, width

    def encode(self, encoder: Any, view: dict[str, Tensor]) -> Tensor:
        return encoder.encode(blend(view["image"], view["ratio"][:, None]))


class PairMixup(SaliencyMixup):
    """SPMix without patches and saliency: mixup of a pair, with one ratio from [floor, clip].

    The label stays the anchor's, as in SPMix; mixup (https://arxiv.org/abs/1710.09412) mixes it.
    """

    def grid_ratio(self, view: dict[str, Tensor], grid: tuple[int, int]) -> Tensor:
        image = view["image"]
        drawn = torch.rand(len(image) // 2, 1, 1, device=image.device)
        return self.floor + (self.clip - self.floor) * drawn


def blend(pairs: Tensor, ratio: Tensor) -> Tensor:
    """Blends even rows of ``pairs`` (2n, ...), weighted by ``ratio``, with the odd rows."""
    anchor, partner = pairs.unflatten(0, (-1, 2)).unbind(1)
    return (ratio * anchor + (1 - ratio) * partner).to(pairs.dtype)
