"""Fine-grained static saliency of batches of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# OpenCV's surrounds, and the image size to which they apply: HAM10000's.
RADII = (12, 24, 48, 28, 56, 112)
HEIGHT, WIDTH = 450, 600


@torch.no_grad()
def fine_grained_saliency(images: Tensor, radii: Sequence[int] | None = None) -> Tensor:
    """Fine-grained saliency (Montabone and Soto, Image and Vision Computing 28(3), 2010).

    Follows OpenCV's ``StaticSaliencyFineGrained``
    (https://github.com/opencv/opencv_contrib/tree/4.x/modules/saliency) in integer arithmetic, so
    that results are the same on every machine. The gray image is blurred twice. At each radius n,
    a pixel is compared to the mean of the 2n x 2n window around it without the pixel itself: On is
    the difference of brighter pixels, Off that of darker ones. On and Off are summed over the
    radii and divided by their maximum in the image, and the map is the sum of both.

    The sum can exceed 255 at pixels that are on at one radius and off at another. OpenCV lets it
    wrap around to black; ours saturates. A constant image has no saliency.

    Args:
        images: RGB images.
        radii: Half sides of the surrounding windows, in pixels. By default OpenCV's 12, 24, 48,
            28, 56 and 112, scaled by the geometric mean of the images' sides relative to 600 x 450,
            the size of HAM10000's: unscaled, they respond to other structures in smaller images.

    Shape:
        ``images`` (B, 3, H, W) uint8, returns (B, 1, H, W) uint8 in the range 0 to 255. Needs
        about 90 bytes of memory per pixel; H and W are at least 2.
    """
    height, width = images.shape[-2:]
    radii = scaled_radii(height, width) if radii is None else radii
    # int32 holds the sum of an image of 8 megapixels; it is also faster than int64.
    wide = torch.int32 if 255 * height * width < 2**31 else torch.int64
    gray = _blurred(_blurred(_gray(images))).to(wide)  # (B, H, W)
    integral = gray.cumsum(1, dtype=wide).cumsum(2, dtype=wide)
    integral = F.pad(integral, (1, 0, 1, 0))  # (B, H + 1, W + 1)
    on = torch.zeros_like(gray)
    off = torch.zeros_like(gray)
    for radius in radii:
        contrast = _contrast(gray, integral, radius)
        on += contrast.clamp(min=0)
        off -= contrast.clamp(max=0)
    return (_normalized(on) + _normalized(off)).clamp(max=255).to(torch.uint8)[:, None]


def scaled_radii(height: int, width: int) -> list[int]:
    """OpenCV's radii, scaled from 600 x 450 to the size of the image."""
    scale = math.sqrt(height * width / (HEIGHT * WIDTH))
    return [max(1, round(scale * radius)) for radius in RADII]


def _gray(images: Tensor) -> Tensor:
    # OpenCV's fixed point: 0.299, 0.587 and 0.114 in units of 2^-15.
    red, green, blue = images.to(torch.int32).unbind(1)
    return (9798 * red + 19235 * green + 3735 * blue + 2**14) >> 15


def _blurred(gray: Tensor) -> Tensor:
    # The 3 x 3 binomial kernel, with a border that is reflected but not repeated.
    x = torch.cat([gray[:, 1:2], gray, gray[:, -2:-1]], dim=1)
    x = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]
    x = torch.cat([x[:, :, 1:2], x, x[:, :, -2:-1]], dim=2)
    return (x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:] + 8) >> 4


def _contrast(gray: Tensor, integral: Tensor, radius: int) -> Tensor:
    """Pixel minus the mean of its surround, truncated towards zero, (B, H, W)."""
    top, bottom = _window(gray.shape[1], radius, gray.device)
    left, right = _window(gray.shape[2], radius, gray.device)
    rows = integral[:, bottom] - integral[:, top]  # (B, H, W + 1)
    total = rows[:, :, right] - rows[:, :, left]
    area = ((bottom - top)[:, None] * (right - left)).to(gray.dtype)
    # g - (total - g) / (area - 1) over a common denominator; clamped for windows of one pixel.
    return torch.div(gray * area - total, (area - 1).clamp(min=1), rounding_mode="trunc")


def _window(length: int, radius: int, device: torch.device) -> tuple[Tensor, Tensor]:
    # Pixels i - radius + 1 to i + radius: off-center by one, as in OpenCV.
    first = torch.arange(length, device=device) - radius + 1
    return first.clamp(min=0), (first + 2 * radius).clamp(max=length)


def _normalized(response: Tensor) -> Tensor:
    maximum = response.amax((1, 2), keepdim=True).clamp(min=1)
    return 255 * response // maximum
