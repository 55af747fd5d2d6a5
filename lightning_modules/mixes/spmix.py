"""Mixes of SPMix: patches of an anchor and its partner, guided by the lesions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.mixes.mix import Mix
from lightning_modules.networks.hybrid_vit import HybridViT
from lightning_modules.networks.timm_network import TimmNetwork

ROUNDING = 1e-6  # a map in [0, 1] with 255 levels and a smaller range is constant


class PatchMix(Mix):
    """Mix of the tokens of an anchor and its partner, with one ratio per patch.

    In batches of :class:`datamodules.samplers.Paired` even rows are anchors x_1 and odd rows their
    partners x_2. The tokens of the mix are r f(x_1) + (1 - r) f(x_2), and its label is the
    anchor's. r is high where either image shows a lesion, so that lesions remain and backgrounds
    are exchanged. All images pass the convolutions together, so that batch norm sees one
    distribution.

    The ratio is computed from a map of the lesion in four steps: noise, mean over each patch,
    min-max over the patches, floor and clip. The paper lists min-max and clip before the mean over
    patches; then few patches reach either end and r averages 0.3, so that the partner dominates
    most mixes. This class follows the published code, in which each ratio ranges from ``floor`` to
    ``clip``. The ratio of a constant map, which does not show the lesion, is ``clip`` everywhere.

    Whether and how much an image is mixed must not depend on its class, because a network would
    learn to detect mixing instead of lesions. Pairs are therefore chosen without their labels.

    Args:
        merge: Merging of the maps of both images: the ratio of their maximum (``maps``, the paper),
            the maximum of their ratios (``ratios``, the published code,
            https://github.com/Yancy10-1/SPMix), or the ratio of the anchor's map (``anchor``, an
            older version in that code).
        guide: Map of the lesion: ``saliency``, or ``mask``, the segmentation drawn by hand.
        noise: Half width of the uniform noise on each pixel, in standard deviations of the map; 0
            is no noise. The code has 0.5 standard deviations of the data set (0.137).
        floor: Smallest ratio, in [0, 1]; the result of min-max is scaled to [floor, 1]. At 0.5, as
            in the code, the anchor keeps at least half of every patch.
        clip: Largest ratio, from ``floor`` to 1. At 1 the most salient patches are not mixed.
        probability: Share of the pairs that are mixed, in [0, 1]. Other anchors are not changed in
            either view.

    Raises:
        ModelError: The encoder has no tokens, the batch lacks the map, or floor, clip or
            probability is out of range.

    Examples:
        >>> view = {"saliency": torch.rand(4, 1, 8, 8), "label": torch.tensor([0, 1, 2, 1])}
        >>> mix = PatchMix(floor=0.5, clip=0.8)
        >>> mix(view, grid=(2, 2), chosen=torch.tensor([True, False]))["ratio"].shape
        torch.Size([2, 2, 2])
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
            raise ModelError(f"floor={floor} and clip={clip}: set 0 <= floor <= clip <= 1.")
        if not 0 <= probability <= 1:
            raise ModelError(f"probability={probability} is out of range: set 0 to 1.")
        self.merge = merge
        self.guide = guide
        self.noise = noise
        self.floor = floor
        self.clip = clip
        self.probability = probability

    def choose(self, label: Tensor) -> Tensor:
        """Choose the anchors to mix, by labels (n,): booleans (n,)."""
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
            chosen: Mask (n,) of the pairs to mix; the ratio of the others is 1.
        """
        ratio = self.grid_ratio(view, grid).expand(-1, *grid)
        return view | {"ratio": torch.where(chosen[:, None, None], ratio, 1.0)}

    def grid(self, encoder: TimmNetwork, view: dict[str, Tensor]) -> tuple[int, int]:
        """Rows and columns of the ratios of a view, those of the encoder's tokens."""
        if not isinstance(encoder, HybridViT):
            raise ModelError(
                "SPMix mixes tokens: set model.network.encoder to a "
                "lightning_modules.networks.HybridViT."
            )
        return encoder.grid

    def encode(self, encoder: TimmNetwork, view: dict[str, Tensor]) -> Tensor:
        """A view of n pairs with their ``ratio`` to the vectors (n, C) of the mixes."""
        assert isinstance(encoder, HybridViT)  # checked by ``grid``
        tokens = encoder.tokens(view["image"])  # (2n, L, D), row by row
        return encoder.encode_tokens(blend(tokens, view["ratio"].flatten(1)[:, :, None]))

    def grid_ratio(self, view: dict[str, Tensor], grid: tuple[int, int]) -> Tensor:
        """Ratios (n, h, w) of all pairs, in [floor, clip]."""
        if self.guide not in view:
            raise ModelError(
                f"SPMix needs the {self.guide} of the images: set --data.{self.guide}=true."
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
        """Maps (n, 1, H, W) with uniform noise, in standard deviations of each map."""
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
    """Mix as written in SPMix's paper: mixes fill each class up to the size of the largest.

    In an epoch with equally frequent classes, the share N_c / N_max of the anchors of class c, with
    N_c images, is not mixed. Mixing then reveals the class: images of the largest class are never
    mixed, those of the rarest class nearly always, and test images never.

    Args:
        class_counts: Number of training images per class; the command line takes them from the
            data.
        **kwargs: As for :class:`PatchMix`.

    Examples:
        >>> mix = FillingPatchMix(class_counts=[100, 10, 1])
        >>> mix.choose(torch.tensor([0, 0])).any().item()  # the largest class is never mixed
        False
    """

    originals: Tensor

    def __init__(self, class_counts: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        counts = torch.tensor(class_counts)
        self.register_buffer("originals", counts / counts.max(), persistent=False)

    def choose(self, label: Tensor) -> Tensor:
        return torch.rand(len(label), device=label.device) >= self.originals[label]


class RandomPatchMix(PatchMix):
    """SPMix without saliency: the ratio of every patch is uniform in [floor, clip].

    With a floor of 0.5 and a clip of 0.8 this is ``random_mixpatch_ratio``, an unused function of
    the published code.

    Examples:
        >>> view = {"image": torch.rand(4, 3, 8, 8), "label": torch.tensor([0, 1, 2, 1])}
        >>> ratio = RandomPatchMix()(view, (2, 2), torch.tensor([True, True]))["ratio"]
        >>> ratio.shape, ((ratio >= 0.5) & (ratio <= 0.8)).all().item()
        (torch.Size([2, 2, 2]), True)
    """

    def grid_ratio(self, view: dict[str, Tensor], grid: tuple[int, int]) -> Tensor:
        image = view["image"]
        drawn = torch.rand(len(image) // 2, *grid, device=image.device)
        return self.floor + (self.clip - self.floor) * drawn


class SalientHalfMix(PatchMix):
    """Mix that keeps the more salient half of the patches.

    The ratio of the other half is uniform in [floor, clip]. This is the oldest version in SPMix's
    published code, the unused functions ``saliency_sortpatch`` and ``random_mixpatch_ratio``.

    Examples:
        >>> view = {"saliency": torch.rand(2, 1, 8, 8), "label": torch.tensor([0, 1])}
        >>> ratio = SalientHalfMix()(view, (4, 4), torch.tensor([True]))["ratio"]
        >>> (ratio == 1).sum().item() >= 8
        True
    """

    def of_map(self, maps: Tensor, grid: tuple[int, int]) -> Tensor:
        mean = F.adaptive_avg_pool2d(self.noisy(maps), grid)[:, 0]
        salient = mean >= mean.flatten(1).median(1).values[:, None, None]
        drawn = self.floor + (self.clip - self.floor) * torch.rand_like(mean)
        return torch.where(salient, 1.0, drawn)


class SaliencyMixup(PatchMix):
    """SPMix without patches: mixup of the images, with a ratio per pixel by the saliency.

    Examples:
        >>> view = {"image": torch.rand(2, 3, 8, 8), "saliency": torch.rand(2, 1, 8, 8)}
        >>> mix = SaliencyMixup()
        >>> mix(view, mix.grid(None, view), torch.tensor([True]))["ratio"].shape
        torch.Size([1, 8, 8])
    """

    def grid(self, encoder: TimmNetwork, view: dict[str, Tensor]) -> tuple[int, int]:
        height, width = view["image"].shape[-2:]
        return height, width

    def encode(self, encoder: TimmNetwork, view: dict[str, Tensor]) -> Tensor:
        return encoder.encode(blend(view["image"], view["ratio"][:, None]))


class PairMixup(SaliencyMixup):
    """SPMix without patches and saliency: mixup of a pair, with one ratio in [floor, clip].

    The label is the anchor's, as in SPMix; mixup (https://arxiv.org/abs/1710.09412) mixes labels.

    Examples:
        >>> view = {"image": torch.rand(4, 3, 8, 8)}
        >>> PairMixup().grid_ratio(view, (8, 8)).shape
        torch.Size([2, 1, 1])
    """

    def grid_ratio(self, view: dict[str, Tensor], grid: tuple[int, int]) -> Tensor:
        image = view["image"]
        drawn = torch.rand(len(image) // 2, 1, 1, device=image.device)
        return self.floor + (self.clip - self.floor) * drawn


def blend(pairs: Tensor, ratio: Tensor) -> Tensor:
    """Blend the even rows of ``pairs`` (2n, ...), weighted by ``ratio``, with the odd rows."""
    anchor, partner = pairs.unflatten(0, (-1, 2)).unbind(1)
    return (ratio * anchor + (1 - ratio) * partner).to(pairs.dtype)
