"""Initialization of codecs with the cosines of blocks, as in JPEG without its rounding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def initialize_with_cosines(analysis: nn.Sequential, synthesis: nn.Sequential) -> None:
    """Initialize downsampling and upsampling layers to a linear code of cosines.

    Channel i of each layer starts as the i-th coarsest cosine of its blocks (4 x 4 pixels in the
    second layer), projected to the span of the previous layer's channels and orthonormal to the
    channels before i. Further channels keep their random weights; like input channels after red,
    green and blue, they do not contribute to the initial reconstruction. The upsampling layers
    start as the transpose.

    Args:
        analysis: Layers from the image on, whose convolutions have stride 2 and kernel size 5.
        synthesis: Layers to the image, with as many transposed convolutions of stride 2 and kernel
            size 4 or 5.
    """
    down = [layer for layer in analysis if isinstance(layer, nn.Conv2d)]
    up = [layer for layer in synthesis if isinstance(layer, nn.ConvTranspose2d)]
    patterns = torch.eye(3)[:, :, None, None]  # of each channel in a block (n, 3, s, s)
    for conv, transposed in zip(down, reversed(up), strict=True):
        number, _, size, _ = patterns.shape
        spanned = torch.zeros(number, 2, 2, 3, 2 * size, 2 * size)
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            rows, columns = (slice(at * size, (at + 1) * size) for at in (i, j))
            spanned[:, i, j, :, rows, columns] = patterns
        spanned = spanned.flatten(3).flatten(0, 2)  # (4n, 12 s^2), orthonormal
        wanted = cosines(2 * size, min(conv.out_channels, len(spanned))).flatten(1)
        basis, triangle = torch.linalg.qr(spanned @ wanted.T)
        kernels = torch.where(triangle.diagonal() < 0, -basis, basis).T  # (m, 4n)
        _put(conv, kernels.view(-1, number, 2, 2), at=2)
        _put(transposed, kernels.view(-1, number, 2, 2), at=1 + transposed.kernel_size[0] % 2)
        patterns = (kernels @ spanned).view(-1, 3, 2 * size, 2 * size)


def cosines(size: int, number: int) -> Tensor:
    """Coarsest orthonormal cosines (number, 3, size, size) of blocks of ``size`` pixels.

    Along rows and columns they are those of the discrete cosine transform, ordered as if amplitudes
    fell with the square of the frequency. Along colors they are gray, red against blue, and green
    against both, with amplitudes of 1, 0.2 and 0.1, because colors vary less than luminance.
    """
    step = torch.arange(float(size))
    waves = F.normalize(torch.cos(torch.pi / size * step[:, None] * (step + 0.5)))
    colors = F.normalize(torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]]))
    basis = torch.einsum("kc,ui,vj->kuvcij", colors, waves, waves).flatten(0, 2)
    amplitudes = torch.tensor([1.0, 0.2, 0.1])[:, None, None] / (
        1 + 6 * (step[:, None].square() + step.square())
    )
    return basis[amplitudes.flatten().argsort(descending=True, stable=True)[:number]]


def _put(layer: nn.Conv2d | nn.ConvTranspose2d, kernels: Tensor, at: int) -> None:
    """Write kernels (m, n, 2, 2) to the positions of disjoint 2 x 2 pixels; zero the others."""
    m, n = kernels.shape[:2]
    weight = layer.get_parameter("weight")
    if isinstance(layer, nn.ConvTranspose2d):
        weight[:, :n] = 0  # further channels do not add to the linear code
    else:
        weight[:m] = 0
    weight[:m, :n, at : at + 2, at : at + 2] = kernels
    nn.init.zeros_(layer.get_parameter("bias"))
