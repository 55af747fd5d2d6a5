"""RandAugment with the operations that leave dermoscopic colors plausible."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def rand_augment(image: Tensor, operations: int, magnitude: float) -> Tensor:
    """Draw the operations of RandAugment (https://arxiv.org/abs/1909.13719) for each image.

    Operations are drawn with replacement from rotation, shear and translation along both axes,
    brightness, contrast and saturation. Each is applied with probability 1/2. There is no
    inversion, solarization, posterization or equalization.

    Args:
        image: Images (B, 3, H, W).
        operations: Number of operations. 0 draws none.
        magnitude: Strength of the operations, in [0, 1], which varies by timm's mstd of 0.5 (a
            twentieth of the range). 1 is the published m10, whose brightness goes down to a tenth,
            so that lesions become invisible.

    Returns:
        Changes (B, 8): angle, two shears and two translations (0 for none), and three color factors
        (1 for none).
    """
    size = (len(image), operations)
    chosen = torch.randint(8, size, device=image.device)
    strength = magnitude + 0.05 * torch.randn(size, device=image.device)
    sign = torch.randint(4, size, device=image.device)  # 0: minus, 1: plus, else not applied
    strength = strength.clamp(0, 1) * (2 * sign - 1) * (sign < 2)
    strengths = (strength[..., None] * F.one_hot(chosen, 8)).sum(1)
    angle, shears, shifts, colors = strengths.split([1, 2, 2, 3], dim=1)
    colors = (1 + 0.9 * colors).clamp(min=0)
    return torch.cat([math.radians(30) * angle, 0.3 * shears, 0.45 * shifts, colors], dim=1)


def affine(motion: Tensor) -> Tensor:
    """Affine maps (B, 3, 3) from angles, shears and translations (B, 5).

    Args:
        motion: Angle in radians, two shears, and two translations as shares of the sides.
    """
    angle, shear_x, shear_y, dx, dy = motion.unbind(1)
    cos = angle.cos()
    sin = angle.sin()
    zero = torch.zeros_like(angle)
    rows = (  # affine_grid's image is two units wide
        (cos, shear_x - sin, 2 * dx),
        (shear_y + sin, cos, 2 * dy),
        (zero, zero, torch.ones_like(angle)),
    )
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
