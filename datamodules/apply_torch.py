"""Warp, colors and blur of batches of float images, by torch on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

GEOMETRIC = ("image", "mask", "saliency")
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue


def adjust(image: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, contrast and saturation by one affine map of each image's colors.

    The contrast is about the mean luminance of the image, saturation about that of each pixel.

    Args:
        image: Images (B, 3, H, W) in [0, 1].
        factors: Factors (B, 3) of brightness, contrast and saturation, at least 0. 1 leaves the
            image unchanged.
    """
    matrix, weight = color_maps(factors)
    mean = image.mean((2, 3)) @ luminance(image).T  # (B, 1)
    colors = torch.baddbmm(weight * mean[..., None], matrix, image.flatten(2))
    return colors.clamp_(0, 1).view_as(image)


def color_maps(factors: Tensor) -> tuple[Tensor, Tensor]:
    """Affine maps of colors from factors (B, 3) of brightness, contrast and saturation.

    Returns:
        The matrix (B, 3, 3), and the weight (B, 1, 1) of the mean luminance of the image that is
        added to each channel. Saturation leaves the luminance as it is.
    """
    b, c, s = factors[..., None, None].unbind(1)  # (B, 1, 1) each
    identity = torch.eye(3, device=factors.device)
    return b * c * (s * identity + (1 - s) * luminance(factors)), b * (1 - c)


def luminance(like: Tensor) -> Tensor:
    """Weights (1, 3) of the luminance, on the device of another tensor."""
    return torch.cat([like.new_full((1, 1), weight) for weight in LUMA], dim=1)


def warp(batch: dict[str, Tensor], inverse: Tensor) -> dict[str, Tensor]:
    """Warp image, mask and saliency together by inverse affine maps, as in ``F.affine_grid``.

    Args:
        batch: Batch of B images.
        inverse: Affine maps (V, B, 2, 3): the B maps of the first view, then of the second, ...

    Returns:
        A batch of V B images, all first views first.
    """
    views = len(inverse)
    names = [name for name in GEOMETRIC if name in batch]
    planes = torch.cat([batch[name].expand(views, -1, -1, -1, -1) for name in names], dim=2)
    planes = planes.flatten(0, 1)  # (V B, 3 to 5, H, W)
    points = grid(inverse.flatten(0, 1), *planes.shape[2:])
    planes = F.grid_sample(planes, points, padding_mode="reflection", align_corners=False)
    warped = planes.split([batch[name].shape[1] for name in names], dim=1)
    others = {k: torch.cat([v] * views) for k, v in batch.items() if k not in names}
    return others | dict(zip(names, warped, strict=True))


def grid(inverse: Tensor, height: int, width: int) -> Tensor:
    """The result (B, H, W, 2) of ``F.affine_grid``, as a sum instead of matrix products."""
    y, x = (
        torch.arange(0.5, side, device=inverse.device) * 2 / side - 1 for side in (height, width)
    )
    columns, rows, shift = inverse[:, None, None].unbind(4)  # (B, 1, 1, 2) each
    return columns * x[:, None] + (rows * y[:, None, None] + shift)


def blur(image: Tensor, chosen: Tensor, size: int, sigma: Tensor) -> None:
    """Blur some images by a Gaussian, in place; pixels outside are reflected.

    Args:
        image: Images (B, 3, H, W).
        chosen: Indices (N,) of those to blur.
        size: Side of the kernel in pixels, odd.
        sigma: Standard deviations (N,) in pixels, on the CPU.
    """
    blurred = gaussian_blur2d(image[chosen], size, sigma[:, None].expand(-1, 2))
    image.index_copy_(0, chosen, blurred)
