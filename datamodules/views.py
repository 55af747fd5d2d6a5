"""Several views of each image, for contrastive learning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn

from datamodules.transforms import RandomTransform, Transform, make_views


class Views(Transform):
    """The batch once through each transform: all first views, then all second views, and so on.

    Args:
        views: Transforms, one for each of the V views.

    Shape:
        Values (B, ...) to (V B, ...).

    Example:
        >>> batch = {"image": torch.rand(8, 3, 64, 64), "label": torch.arange(8)}
        >>> views = Views([RandomCrop(), RandomCrop(gray=0.2, blur=0.5)])(batch)
        >>> views["image"].shape, views["label"].shape
        (torch.Size([16, 3, 64, 64]), torch.Size([16]))
    """

    def __init__(self, views: list[RandomTransform]) -> None:
        super().__init__()
        self.views = nn.ModuleList(views)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return make_views(batch, cast(Sequence[RandomTransform], self.views))


class RandomCrop(RandomTransform):
    """Random resized crops, flips and colors as in PaCo, drawn for each image.

    With ``operations`` it is the published ``randcls``, with ``gray`` and ``blur`` it is ``sim``,
    and with all three GPaCo's ``randclsstack`` (https://arxiv.org/abs/2107.12028, published code).
    There are three differences. Images are flipped in both directions, because lesions have no
    canonical orientation. A crop that would be wider or higher than the image is as wide or
    high as the image. RandAugment has only the operations that leave dermoscopic colors
    plausible: no inversion, solarization, posterization or equalization.

    Args:
        area: Range of the crop's share of the image's area, in (0, 1]. 1 is the whole image.
        ratio: Range of the crop's width over its height, drawn uniformly on a log scale.
        jitter: Half width j of the range [1 - j, 1 + j] of the factors of brightness, contrast
            and saturation, in [0, 1]. 0 leaves the colors unchanged.
        operations: Number of operations of RandAugment (https://arxiv.org/abs/1909.13719), drawn
            with replacement from rotation, shear and translation along both axes, brightness,
            contrast and saturation. Each is applied with probability 1/2. 0 turns RandAugment off.
        magnitude: Strength of these operations, in [0, 1], which varies by timm's mstd of 0.5 (a
            twentieth of the range). 1 is the published m10, whose brightness goes down to a tenth,
            so that lesions become invisible.
        gray: Probability that an image loses its colors. 0 keeps all colors.
        blur: Share of the batch that is blurred by a Gaussian, drawn anew each time. 0 blurs none.
        sigma: Range of the Gaussian's standard deviation, in 224ths of the image's height.

    Example:
        >>> batch = {"image": torch.rand(8, 3, 64, 64), "label": torch.arange(8)}
        >>> RandomCrop(area=(0.2, 1.0), operations=2)(batch)["image"].shape
        torch.Size([8, 3, 64, 64])
    """

    def __init__(
        self,
        area: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        jitter: float = 0.4,
        operations: int = 0,
        magnitude: float = 0.5,
        gray: float = 0.0,
        blur: float = 0.0,
        sigma: tuple[float, float] = (0.1, 2.0),
    ) -> None:
        super().__init__()
        self.area = area
        self.ratio = ratio
        self.jitter = jitter
        self.operations = operations
        self.magnitude = magnitude
        self.gray = gray
        self.blur = blur
        self.sigma = sigma

    def draw(self, image: Tensor) -> tuple[Tensor, Tensor]:
        draws = torch.rand(len(image), 10, device=image.device).unbind(1)
        motion, factors = self.rand_augment(image).split([5, 3], dim=1)
        factors = (1 + self.jitter * (2 * torch.stack(draws[6:9], dim=1) - 1)) * factors
        factors[:, 2] *= draws[9] >= self.gray
        return self.crop(*draws[:6]) @ affine(motion), factors

    def crop(
        self, area: Tensor, ratio: Tensor, x: Tensor, y: Tensor, flip_x: Tensor, flip_y: Tensor
    ) -> Tensor:
        """Inverse affine maps (B, 2, 3) of the crops from uniform draws (B,)."""
        low, high = self.area
        area = low + (high - low) * area
        low, high = (math.log(end) for end in self.ratio)
        ratio = torch.exp(low + (high - low) * ratio)
        width = (area * ratio).sqrt().clamp(max=1)
        height = (area / ratio).sqrt().clamp(max=1)
        x = (1 - width) * (2 * x - 1)
        y = (1 - height) * (2 * y - 1)
        width = width * (flip_x.round() * 2 - 1)
        height = height * (flip_y.round() * 2 - 1)
        rows = (width, torch.zeros_like(x), x), (torch.zeros_like(y), height, y)
        return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)

    def rand_augment(self, image: Tensor) -> Tensor:
        """Draws the operations of each image, (B, 8).

        Returns:
            Angle, two shears and two translations (0 for none), and three color factors (1 for
            none).
        """
        size = (len(image), self.operations)
        chosen = torch.randint(8, size, device=image.device)
        strength = self.magnitude + 0.05 * torch.randn(size, device=image.device)
        sign = torch.randint(4, size, device=image.device)  # 0: minus, 1: plus, else not applied
        strength = strength.clamp(0, 1) * (2 * sign - 1) * (sign < 2)
        strengths = (strength[..., None] * F.one_hot(chosen, 8)).sum(1)
        angle, shears, shifts, colors = strengths.split([1, 2, 2, 3], dim=1)
        colors = (1 + 0.9 * colors).clamp(min=0)
        return torch.cat([math.radians(30) * angle, 0.3 * shears, 0.45 * shifts, colors], dim=1)

    def finish(self, image: Tensor) -> None:
        number = round(self.blur * len(image))
        if number == 0:
            return
        chosen = torch.rand(len(image), device=image.device).argsort()[:number]
        low, high = (end * image.shape[2] / 224 for end in self.sigma)
        # On the CPU, because kornia reads these values.
        sigma = low + (high - low) * torch.rand(number, 1).expand(-1, 2)
        size = 2 * math.ceil(3 * high) + 1
        image.index_copy_(0, chosen, gaussian_blur2d(image[chosen], size, sigma))


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
