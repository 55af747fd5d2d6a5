"""Random erasing: replaces a rectangle of each image by noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

AREA = (0.02, 0.4)  # of the erased rectangle, as a share of the image's area
RATIO = (0.3, 1 / 0.3)  # of its height over its width


def erase(image: Tensor, probability: float) -> None:
    """Random erasing (https://arxiv.org/abs/1708.04896, algorithm 1) of each image, in place.

    The rectangle has the area and the ratio of the paper's experiments and is filled with uniform
    noise. A rectangle that would be higher or wider than the image is as high or wide as the image,
    whereas the paper draws another one.

    Args:
        image: Images (B, 3, H, W) in [0, 1].
        probability: Probability of erasing, in [0, 1].
    """
    draws = torch.rand(len(image), 5, device=image.device).unbind(1)
    chosen, area, ratio, y, x = draws
    area = AREA[0] + (AREA[1] - AREA[0]) * area
    low, high = (math.log(end) for end in RATIO)
    ratio = torch.exp(low + (high - low) * ratio)
    rows = spanned((area * ratio).sqrt(), y, image.shape[2])
    columns = spanned((area / ratio).sqrt(), x, image.shape[3])
    erased = rows[:, None, :, None] & columns[:, None, None, :]
    erased &= (chosen < probability)[:, None, None, None]
    noise = torch.rand(image.shape, device=image.device)  # the same in every memory layout
    image.copy_(torch.where(erased, noise, image))


def spanned(share: Tensor, place: Tensor, length: int) -> Tensor:
    """Mask (B, length) of consecutive rows or columns.

    Args:
        share: Number of rows (B,) as a share of ``length``; 1 at most.
        place: Position (B,) of the first row, from 0 (the first possible) to 1 (the last).
        length: Number of rows or columns of the image.
    """
    number = (share.clamp(max=1) * length).round()
    first = (place * (length - number + 1)).floor().clamp(max=length)
    position = torch.arange(length, device=share.device)
    return (position >= first[:, None]) & (position < (first + number)[:, None])
