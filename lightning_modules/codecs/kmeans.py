"""Colour quantisation by k-means: the first baseline of learned compression."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_modules.codecs.codec import Codec, Reconstruction, to_bytes
from lightning_modules.errors import ModelError

GOLDEN = (math.sqrt(5) - 1) / 2
DISTANCES = 2**26  # held at a time: a quarter of a gigabyte


class KMeans(Codec):
    """Each image with a palette of k colours, the centroids of its pixels.

    Seeds are k-means++ (https://dl.acm.org/doi/10.5555/1283383.1283494) with the golden-ratio
    sequence in the place of random numbers, so an image has one palette, whatever else is in the
    batch. A colour is never seeded twice: from k = the number of colours on, nothing is lost.

    Bits are those of the indices, log2 k a pixel rounded up, and 24 for each colour of the palette.
    The source counts the indices alone: against 24 bits a pixel, k = 16 is 6x and k = 256 is 3x.

    Args:
        k: Colours of a palette.
        iterations: Lloyd's, of assignment and means.
    """

    def __init__(self, k: int = 16, iterations: int = 10) -> None:
        super().__init__()
        if k < 1:
            raise ModelError(f"A palette of k = {k} colours paints nothing: k is 1 or more.")
        self.k, self.iterations = k, iterations

    def reconstruct(self, images: Tensor) -> Reconstruction:
        indices = math.ceil(math.log2(self.k)) * images.shape[2] * images.shape[3]
        bits = images.new_full((len(images),), indices + 24.0 * self.k)
        return Reconstruction(self.decode(self.encode(images)), bits)

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Palettes (B, k, 3) from 0 to 255, and the indices (B, H, W) into them."""
        pixels = to_bytes(images).flatten(2).mT  # (B, HW, 3)
        at_once = max(1, DISTANCES // (self.k * pixels.shape[1]))
        parts = [self.cluster(part) for part in pixels.split(at_once)]
        palette, index = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return palette, index.view(-1, *images.shape[2:])

    def decode(self, code: tuple[Tensor, Tensor]) -> Tensor:
        palette, index = code
        return _look_up(palette, index.flatten(1)).mT.unflatten(2, index.shape[1:]) / 255

    def cluster(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (B, N, 3) to palettes (B, k, 3) of whole numbers and nearest ones (B, N)."""
        palette = self.seeds(pixels)
        counted = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=2).long()
        for _ in range(self.iterations):
            members = nearest(pixels, palette)[..., None].expand(-1, -1, 4)
            # Of whole numbers, because the order in which a GPU adds must not matter.
            sums = counted.new_zeros(len(pixels), self.k, 4).scatter_add_(1, members, counted)
            means = sums[..., :3] / sums[..., 3:].clamp(min=1)
            palette = means.where(sums[..., 3:] > 0, palette)
        palette = palette.round()
        return palette, nearest(pixels, palette)

    def seeds(self, pixels: Tensor) -> Tensor:
        """The first palettes (B, k, 3): pixels drawn by their squared distance to those before."""
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
    """Indices (B, N) of the colours of (B, k, 3) that are nearest to the pixels (B, N, 3)."""
    return torch.baddbmm(palette.square().sum(2)[:, None], pixels, palette.mT, alpha=-2).argmin(2)


def _look_up(palette: Tensor, index: Tensor) -> Tensor:
    return palette.gather(1, index[..., None].expand(-1, -1, 3))
