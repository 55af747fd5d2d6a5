"""Color quantization by k-means, a baseline of learned compression."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_modules.codecs.codec import Codec, Reconstruction, to_bytes
from lightning_modules.errors import ModelError

GOLDEN = (math.sqrt(5) - 1) / 2
DISTANCES = 2**26  # held in memory at a time: a quarter of a gigabyte


class KMeans(Codec):
    """Color quantization of each image to a palette of k colors, the centroids of its pixels.

    Seeding is k-means++ (https://dl.acm.org/doi/10.5555/1283383.1283494) with the golden-ratio
    sequence in place of random numbers, so the palette of an image does not depend on the rest of
    the batch. Seeds are distinct colors: if k is at least the number of colors, the code is
    lossless.

    Bits are those of the indices, log2 k per pixel rounded up, and 24 for each color of the
    palette. The source counts the indices alone: against 24 bits per pixel, k = 16 is 6x and
    k = 256 is 3x.

    Args:
        k: Number of colors of a palette, at least 1.
        iterations: Number of Lloyd iterations of assignment and means, at least 0; 0 keeps
            the seeds.

    Examples:
        >>> reconstruction = KMeans(k=4)(torch.rand(1, 3, 16, 16))
        >>> reconstruction.image.shape, reconstruction.bits  # 2 x 256 + 24 x 4
        (torch.Size([1, 3, 16, 16]), tensor([608.]))
    """

    def __init__(self, k: int = 16, iterations: int = 10) -> None:
        super().__init__()
        if k < 1:
            raise ModelError(f"A palette has k = {k} colors: set k to 1 or more.")
        self.k, self.iterations = k, iterations

    def reconstruct(self, images: Tensor) -> Reconstruction:
        indices = math.ceil(math.log2(self.k)) * images.shape[2] * images.shape[3]
        bits = images.new_full((len(images),), indices + 24.0 * self.k)
        return Reconstruction(self.decode(self.encode(images)), bits)

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode to palettes (B, k, 3) from 0 to 255 and indices (B, H, W) into them."""
        pixels = to_bytes(images).flatten(2).mT  # (B, HW, 3)
        at_once = max(1, DISTANCES // (self.k * pixels.shape[1]))
        parts = [self.cluster(part) for part in pixels.split(at_once)]
        palette, index = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return palette, index.view(-1, *images.shape[2:])

    def decode(self, code: tuple[Tensor, Tensor]) -> Tensor:
        palette, index = code
        return _look_up(palette, index.flatten(1)).mT.unflatten(2, index.shape[1:]) / 255

    def cluster(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Cluster pixels (B, N, 3) to palettes (B, k, 3) of whole numbers and indices (B, N)."""
        palette = self.seeds(pixels)
        counted = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=2).long()
        for _ in range(self.iterations):
            members = nearest(pixels, palette)[..., None].expand(-1, -1, 4)
            # Whole numbers, so that the order in which a GPU adds does not matter.
            sums = counted.new_zeros(len(pixels), self.k, 4).scatter_add_(1, members, counted)
            means = sums[..., :3] / sums[..., 3:].clamp(min=1)
            palette = means.where(sums[..., 3:] > 0, palette)
        palette = palette.round()
        return palette, nearest(pixels, palette)

    def seeds(self, pixels: Tensor) -> Tensor:
        """Initial palettes (B, k, 3): pixels sampled by squared distance to previous seeds."""
        distance = (pixels - pixels[:, :1]).square().sum(2).long()
        palette = [pixels[:, :1]]
        for j in range(1, self.k):
            sums = distance.cumsum(1)
            drawn = sums[:, -1:] * int(j * GOLDEN % 1 * 2**20) >> 20  # exact on any device
            index = torch.searchsorted(sums, drawn, right=True).clamp_(max=pixels.shape[1] - 1)
            palette.append(_look_up(pixels, index))
            distance = distance.minimum((pixels - palette[-1]).square().sum(2).long())
        return torch.cat(palette, dim=1)


def nearest(pixels: Tensor, palette: Tensor) -> Tensor:
    """Indices (B, N) of the palette colors (B, k, 3) nearest to pixels (B, N, 3)."""
    return torch.baddbmm(palette.square().sum(2)[:, None], pixels, palette.mT, alpha=-2).argmin(2)


def _look_up(palette: Tensor, index: Tensor) -> Tensor:
    return palette.gather(1, index[..., None].expand(-1, -1, 3))
