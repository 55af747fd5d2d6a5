"""Augmentation, batch to batch: batched, and run where the model runs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GEOMETRIC = ("image", "mask", "saliency")


class Augment(nn.Module):
    """Random flips, rotation, zoom, shift and colour, drawn for each image of a batch.

    Image, mask and saliency go through one warp as channels of one picture, so they always agree.
    What comes into view from outside is the reflected picture.

    Args:
        rotation: Largest angle in degrees; a lesion has no upright position.
        zoom: Range of the magnification, drawn evenly on a log scale.
        shift: Largest translation as a share of the picture's side.
        brightness: Factor drawn from [1 - b, 1 + b].
        contrast: Likewise, about the mean luminance of the picture.
        saturation: Likewise, about the luminance of each pixel.

    Shape:
        ``image`` (B, 3, H, W) in [0, 1], ``mask`` and ``saliency`` (B, 1, H, W), same out.
    """

    def __init__(
        self,
        rotation: float = 180.0,
        zoom: tuple[float, float] = (0.8, 1.25),
        shift: float = 0.1,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
    ) -> None:
        super().__init__()
        self.rotation, self.zoom, self.shift = math.radians(rotation), zoom, shift
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation
        self.adjust = Adjust()

    @torch.no_grad()
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        image = batch["image"]
        draws = torch.rand(len(image), 9, device=image.device).unbind(1)
        batch = warp(batch, self.geometry(*draws[:6]))
        return batch | {"image": self.colour(batch["image"], *draws[6:])}

    def geometry(
        self, angle: Tensor, zoom: Tensor, dx: Tensor, dy: Tensor, flip_x: Tensor, flip_y: Tensor
    ) -> Tensor:
        """Uniform draws (B,) to the inverse affine maps (B, 2, 3) of ``F.affine_grid``."""
        angle = self.rotation * (2 * angle - 1)
        low, high = (math.log(end) for end in self.zoom)
        scale = torch.exp(-(low + (high - low) * zoom))
        cos, sin = scale * angle.cos(), scale * angle.sin()
        x, y = flip_x.round() * 2 - 1, flip_y.round() * 2 - 1
        shift = 2 * self.shift  # affine_grid's picture is two units wide
        rows = (cos * x, -sin * y, shift * (2 * dx - 1)), (sin * x, cos * y, shift * (2 * dy - 1))
        return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)

    def colour(self, image: Tensor, brightness: Tensor, contrast: Tensor, sat: Tensor) -> Tensor:
        """Uniform draws (B,) to factors of the colours of each image."""
        b = 1 + self.brightness * (2 * brightness - 1)
        c = 1 + self.contrast * (2 * contrast - 1)
        s = 1 + self.saturation * (2 * sat - 1)
        return self.adjust(image, b, c, s)


class Adjust(nn.Module):
    """Brightness, contrast and saturation as one affine map of the colours of each image.

    Shape:
        Images (B, 3, H, W) in [0, 1] and the three factors (B,), at least 0, to the same. The
        contrast is about the mean luminance of the image, saturation about that of each pixel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.luma: Tensor
        self.register_buffer("luma", torch.tensor([0.299, 0.587, 0.114]), persistent=False)

    def forward(self, image: Tensor, b: Tensor, c: Tensor, s: Tensor) -> Tensor:
        gray = self.luma.expand(3, 3)
        identity = torch.eye(3, device=image.device)
        matrix = s[:, None, None] * identity + (1 - s)[:, None, None] * gray
        mean = image.mean((2, 3)) @ self.luma  # saturation leaves the luminance as it is
        bias = b * (1 - c) * mean
        matrix = (b * c)[:, None, None] * matrix
        colours = torch.baddbmm(bias[:, None, None], matrix, image.flatten(2))
        return colours.clamp_(0, 1).view_as(image)


def warp(batch: dict[str, Tensor], inverse: Tensor) -> dict[str, Tensor]:
    """Image and maps through the inverse affine maps (B, 2, 3) of ``F.affine_grid``, as one."""
    names = [name for name in GEOMETRIC if name in batch]
    planes = torch.cat([batch[name] for name in names], dim=1)  # (B, 3 to 5, H, W)
    planes = F.grid_sample(
        planes, grid(inverse, *planes.shape[2:]), padding_mode="reflection", align_corners=False
    )
    warped = planes.split([batch[name].shape[1] for name in names], dim=1)
    return batch | dict(zip(names, warped, strict=True))


def grid(inverse: Tensor, height: int, width: int) -> Tensor:
    """What ``F.affine_grid`` gives (B, H, W, 2), as one sum in place of products."""
    y, x = (
        torch.arange(0.5, side, device=inverse.device) * 2 / side - 1 for side in (height, width)
    )
    columns, rows, shift = inverse[:, None, None].unbind(4)  # (B, 1, 1, 2) each
    return columns * x[:, None] + (rows * y[:, None, None] + shift)
