"""The mixing of SPMix: a rare lesion in front of the background of a frequent one."""

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
    """SPMix's mixing: tokens of an anchor and of its partner, with one ratio for every patch.

    In batches of :class:`datamodules.samplers.Paired` even rows are anchors x_1 and odd ones their
    partners x_2. The anchor keeps its label; its tokens become r f(x_1) + (1 - r) f(x_2), where r
    is high where either image is salient: lesions stay, and backgrounds are exchanged. All images
    go through the convolutions together, so that batch norm sees one distribution.

    The ratio is made of saliency: noise, mean over each patch, min-max over the patches, floor and
    clip. In the paper that is done to the maximum of the two maps; the published code
    (https://github.com/Yancy10-1/SPMix) does it to each and takes the maximum of the two ratios.
    The paper has min-max before the mean over patches, or leaves that open; afterwards, as in the
    code, the ratio reaches from ``floor`` to ``clip`` in every image. A constant map says nothing
    about where the lesion is: its ratio is ``clip`` everywhere.

    Args:
        order: When the maximum is taken: before (``paper``) or at the end (``code``).
        noise: Half width of the uniform noise on each pixel, in standard deviations of the map;
            0.5 in the code, of the data set's 0.137 in place of each map's own.
        floor: The smallest ratio; 0.5 in the code. What min-max gives is scaled to [floor, 1].
        clip: The largest ratio; at 1 salient tokens are not mixed at all.
        only_rarer: Whether an anchor is mixed only if its class has fewer training images than its
            partner's. The paper makes images of rare classes; the code mixes every pair.
        class_counts: Training images per class; the command line takes them from the data.

    Raises:
        ModelError: The encoder has no tokens, the batch no saliency, or the options contradict.
    """

    def __init__(
        self,
        order: Literal["paper", "code"] = "paper",
        noise: float = 0.5,
        floor: float = 0.0,
        clip: float = 0.8,
        only_rarer: bool = True,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.class_counts: Tensor
        if only_rarer and class_counts is None:
            raise ModelError("only_rarer needs the images per class: give class_counts.")
        if not 0 <= floor <= clip <= 1:
            raise ModelError(f"A ratio from floor={floor} to clip={clip} is not within [0, 1].")
        self.order, self.noise, self.floor, self.clip = order, noise, floor, clip
        self.only_rarer = only_rarer
        self.register_buffer("class_counts", torch.tensor(class_counts or []), persistent=False)

    def encode(self, encoder: Any, view: dict[str, Tensor]) -> Tensor:
        """A view of n pairs to the vectors (n, C) of the mixed anchors.

        Args:
            encoder: A :class:`~lightning_modules.networks.HybridViT`.
            view: ``image`` (2n, 3, H, W), ``saliency`` (2n, 1, H, W), ``label`` (2n,).
        """
        ratio = self.ratio(view, self.grid(encoder, view)).flatten(1)  # (n, L), row by row
        tokens = encoder.tokens(view["image"])  # (2n, L, D)
        return encoder.encode_tokens(blend(tokens, ratio[:, :, None]))

    def grid(self, encoder: Any, view: dict[str, Tensor]) -> tuple[int, int]:
        """Rows and columns of the ratios of a view: those of the encoder's tokens."""
        if not isinstance(encoder, HybridViT):
            raise ModelError("SPMix mixes tokens: let its encoder be a networks.HybridViT.")
        return encoder.grid

    @torch.no_grad()
    def ratio(self, view: dict[str, Tensor], grid: tuple[int, int]) -> Tensor:
        """Ratios (n, h, w) on a ``grid`` (h, w), in [floor, clip]; 1 where nothing is mixed."""
        if len(view["label"]) % 2:
            raise ModelError(
                "SPMix takes images in pairs: make data.batch_size a multiple of twice the number "
                "of processes."
            )
        mixed = self.grid_ratio(view, grid)
        if not self.only_rarer:
            return mixed
        counts = self.class_counts[view["label"]]
        rarer = counts[::2] < counts[1::2]
        return torch.where(rarer[:, None, None], mixed, 1.0)

    def grid_ratio(self, view: dict[str, Tensor], grid: tuple[int, int]) -> Tensor:
        """Ratios (n, h, w) of all pairs."""
        if "saliency" not in view:
            raise ModelError("SPMix needs the saliency of the images: set data.saliency.")
        anchor, partner = view["saliency"].float().unflatten(0, (-1, 2)).unbind(1)
        if self.order == "paper":
            return self.of_map(torch.maximum(anchor, partner), grid)
        return torch.maximum(self.of_map(anchor, grid), self.of_map(partner, grid))

    def of_map(self, maps: Tensor, grid: tuple[int, int]) -> Tensor:
        """Saliency (n, 1, H, W) to ratios (n, h, w)."""
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


class RandomPatchMix(PatchMix):
    """SPMix without saliency: the ratio of every patch is drawn, evenly, and scaled as ever.

    Not a constant ratio: this keeps all of SPMix but the knowledge of where the lesion is.
    """

    def grid_ratio(self, view: dict[str, Tensor], grid: tuple[int, int]) -> Tensor:
        image = view["image"]
        return self.scaled(torch.rand(len(image) // 2, *grid, device=image.device))


class SaliencyMixup(PatchMix):
    """SPMix without patches: mixup of the images themselves, by the saliency of every pixel."""

    def encode(self, encoder: Any, view: dict[str, Tensor]) -> Tensor:
        ratio = self.ratio(view, self.grid(encoder, view))
        return encoder.encode(blend(view["image"], ratio[:, None]))

    def grid(self, encoder: Any, view: dict[str, Tensor]) -> tuple[int, int]:
        height, width = view["image"].shape[-2:]
        return height, width


def blend(pairs: Tensor, ratio: Tensor) -> Tensor:
    """Even rows of ``pairs`` (2n, ...) times ``ratio``, plus the odd ones times the rest."""
    anchor, partner = pairs.unflatten(0, (-1, 2)).unbind(1)
    return (ratio * anchor + (1 - ratio) * partner).to(pairs.dtype)
