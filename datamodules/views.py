"""Several views of each image, as contrastive methods compare them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn

from datamodules.transforms import Transform, carry_out


class Views(nn.Module):
    """The batch once through each transform: all first views, then all second ones, and so on.

    Args:
        views: V transforms.

    Shape:
        Values (B, ...) to (V B, ...).
    """

    def __init__(self, views: list[Transform]) -> None:
        super().__init__()
        self.views = nn.ModuleList(views)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return carry_out(batch, list(self.views))  # type: ignore[arg-type]


class RandomCrop(Transform):
    """Random resized crops, flips and colours, of PaCo's kinds, drawn for each image.

    With ``operations`` it is ``randcls``, with ``gray`` and ``blur`` ``sim``, with all three
    GPaCo's ``randclsstack`` (https://arxiv.org/abs/2107.12028, published code). Unlike there,
    pictures are flipped in both directions, because a lesion has no upright position; a crop that
    would be wider or higher than the picture is as wide or high; and of RandAugment only those
    operations are here that leave dermoscopic colours plausible: no inversion, solarising,
    posterising or equalising.

    Args:
        area: Range of the crop's share of the picture's area.
        ratio: Range of width over height of the crop, drawn evenly on a log scale.
        jitter: Factors of brightness, contrast and saturation are drawn from [1 - j, 1 + j].
        operations: How many operations of RandAugment are drawn (https://arxiv.org/abs/1909.13719),
            with replacement, of rotation, shear and translation along both axes, brightness,
            contrast and saturation; each is carried out with probability 1/2.
        magnitude: Of the operations, in [0, 1]; it varies by timm's mstd of 0.5, a twentieth. 1 is
            the published m10, where brightness goes down to a tenth and lesions can no longer be
            seen.
        gray: Probability that colour is taken away.
        blur: Share of the batch that gets a Gaussian blur, drawn anew each time.
        sigma: Range of its standard deviation, in 224ths of the picture's height.
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
        self.area, self.ratio, self.jitter = area, ratio, jitter
        self.operations, self.magnitude = operations, magnitude
        self.gray, self.blur, self.sigma = gray, blur, sigma

    def draw(self, image: Tensor) -> tuple[Tensor, Tensor]:
        draws = torch.rand(len(image), 10, device=image.device).unbind(1)
        moved, factors = self.rand_augment(image).split([5, 3], dim=1)
        factors = (1 + self.jitter * (2 * torch.stack(draws[6:9], dim=1) - 1)) * factors
        factors[:, 2] *= draws[9] >= self.gray
        return self.crop(*draws[:6]) @ affine(moved), factors

    def crop(
        self, area: Tensor, ratio: Tensor, x: Tensor, y: Tensor, flip_x: Tensor, flip_y: Tensor
    ) -> Tensor:
        """Uniform draws (B,) to the inverse affine maps (B, 2, 3) of the crops."""
        low, high = self.area
        area = low + (high - low) * area
        low, high = (math.log(end) for end in self.ratio)
        ratio = torch.exp(low + (high - low) * ratio)
        width = (area * ratio).sqrt().clamp(max=1)
        height = (area / ratio).sqrt().clamp(max=1)
        x, y = (1 - width) * (2 * x - 1), (1 - height) * (2 * y - 1)
        width, height = width * (flip_x.round() * 2 - 1), height * (flip_y.round() * 2 - 1)
        rows = (width, torch.zeros_like(x), x), (torch.zeros_like(y), height, y)
        return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)

    def rand_augment(self, image: Tensor) -> Tensor:
        """Angle, shears, translations (0: none) and colour factors (1: none) of images, (B, 8)."""
        size = (len(image), self.operations)
        chosen = torch.randint(8, size, device=image.device)
        strength = self.magnitude + 0.05 * torch.randn(size, device=image.device)
        sign = torch.randint(4, size, device=image.device)  # 0: minus, 1: plus, else not at all
        strength = strength.clamp(0, 1) * (2 * sign - 1) * (sign < 2)
        strengths = (strength[..., None] * F.one_hot(chosen, 8)).sum(1)
        angle, shears, shifts, colours = strengths.split([1, 2, 2, 3], dim=1)
        colours = (1 + 0.9 * colours).clamp(min=0)
        return torch.cat([math.radians(30) * angle, 0.3 * shears, 0.45 * shifts, colours], dim=1)

    def finish(self, image: Tensor) -> None:
        number = round(self.blur * len(image))
        if number == 0:
            return
        chosen = torch.rand(len(image), device=image.device).argsort()[:number]
        low, high = (end * image.shape[2] / 224 for end in self.sigma)
        sigma = low + (high - low) * torch.rand(number, 1).expand(-1, 2)  # on the CPU: kornia looks
        size = 2 * math.ceil(3 * high) + 1
        image.index_copy_(0, chosen, gaussian_blur2d(image[chosen], size, sigma))


def affine(moved: Tensor) -> Tensor:
    """Angle in radians, shears, and translations as shares of the sides (B, 5) to (B, 3, 3)."""
    angle, shear_x, shear_y, dx, dy = moved.unbind(1)
    cos, sin, nothing = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = (  # affine_grid's picture is two units wide
        (cos, shear_x - sin, 2 * dx),
        (shear_y + sin, cos, 2 * dy),
        (nothing, nothing, torch.ones_like(angle)),
    )
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
