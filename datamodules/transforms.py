"""Augmentation, batch to batch: batched, and run where the model runs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GEOMETRIC = ("image", "mask", "saliency")
LUMA = 0.299, 0.587, 0.114


class Transform(nn.Module, ABC):
    """A random affine warp and random colours, drawn for each image of a batch.

    Image, mask and saliency go through one warp as channels of one picture, so they always agree.
    What comes into view from outside is the reflected picture.

    Shape:
        ``image`` (B, 3, H, W) in [0, 1], ``mask`` and ``saliency`` (B, 1, H, W), same out.
    """

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return carry_out(batch, [self])

    @abstractmethod
    def draw(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What is done to images (B, 3, H, W).

        Returns:
            The inverse affine maps (B, 2, 3) of ``F.affine_grid``, and the factors of brightness,
            contrast and saturation (B, 3).
        """

    def finish(self, image: Tensor) -> None:
        """What else is done to the images, in place."""


@torch.no_grad()
def carry_out(batch: dict[str, Tensor], transforms: Sequence[Transform]) -> dict[str, Tensor]:
    """The batch through each of V transforms at once: (B, ...) to (V B, ...), the first's first."""
    maps, factors = zip(*(transform.draw(batch["image"]) for transform in transforms), strict=True)
    batch = warp(batch, torch.stack(maps))
    image = adjust(batch["image"], torch.cat(factors))
    for transform, part in zip(transforms, image.chunk(len(transforms)), strict=True):
        transform.finish(part)
    return batch | {"image": image}


class Augment(Transform):
    """Random flips, rotation, zoom, shift and colour.

    Args:
        rotation: Largest angle in degrees; a lesion has no upright position.
        zoom: Range of the magnification, drawn evenly on a log scale.
        shift: Largest translation as a share of the picture's side.
        brightness: Factor drawn from [1 - b, 1 + b].
        contrast: Likewise, about the mean luminance of the picture.
        saturation: Likewise, about the luminance of each pixel.
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

    def draw(self, image: Tensor) -> tuple[Tensor, Tensor]:
        draws = torch.rand(len(image), 9, device=image.device).unbind(1)
        return self.geometry(*draws[:6]), self.colours(*draws[6:])

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

    def colours(self, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
        """Uniform draws (B,) to factors (B, 3)."""
        b = 1 + self.brightness * (2 * brightness - 1)
        c = 1 + self.contrast * (2 * contrast - 1)
        s = 1 + self.saturation * (2 * saturation - 1)
        return torch.stack([b, c, s], dim=1)


def adjust(image: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation as one affine map of the colours of each image.

    The contrast is about the mean luminance of the image, saturation about that of each pixel.

    Args:
        image: (B, 3, H, W) in [0, 1].
        factors: Of brightness, contrast and saturation (B, 3), at least 0.
    """
    b, c, s = factors[..., None, None].unbind(1)  # (B, 1, 1) each
    luma = torch.cat([image.new_full((1, 1), weight) for weight in LUMA], dim=1)
    matrix = b * c * (s * torch.eye(3, device=image.device) + (1 - s) * luma)
    # Saturation leaves the luminance as it is.
    bias = b * (1 - c) * (image.mean((2, 3)) @ luma.T)[..., None]
    colours = torch.baddbmm(bias, matrix, image.flatten(2))
    return colours.clamp_(0, 1).view_as(image)


def warp(batch: dict[str, Tensor], inverse: Tensor) -> dict[str, Tensor]:
    """Image and maps through inverse affine maps as those of ``F.affine_grid``, as one picture.

    Args:
        batch: Of B images.
        inverse: (V, B, 2, 3): all images by the first B maps, then by the second, and so on.

    Returns:
        A batch of V B.
    """
    views, names = len(inverse), [name for name in GEOMETRIC if name in batch]
    planes = torch.cat([batch[name].expand(views, -1, -1, -1, -1) for name in names], dim=2)
    planes = planes.flatten(0, 1)  # (V B, 3 to 5, H, W)
    points = grid(inverse.flatten(0, 1), *planes.shape[2:])
    planes = F.grid_sample(planes, points, padding_mode="reflection", align_corners=False)
    warped = planes.split([batch[name].shape[1] for name in names], dim=1)
    others = {k: torch.cat([v] * views) for k, v in batch.items() if k not in names}
    return others | dict(zip(names, warped, strict=True))


def grid(inverse: Tensor, height: int, width: int) -> Tensor:
    """What ``F.affine_grid`` gives (B, H, W, 2), as one sum in place of products."""
    y, x = (
        torch.arange(0.5, side, device=inverse.device) * 2 / side - 1 for side in (height, width)
    )
    columns, rows, shift = inverse[:, None, None].unbind(4)  # (B, 1, 1, 2) each
    return columns * x[:, None] + (rows * y[:, None, None] + shift)
