"""Several views of each image, for contrastive learning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from datamodules import apply_opencv, apply_torch
from datamodules.rand_augment import affine, rand_augment
from datamodules.transforms import RandomTransform, Transform, make_views


class Views(Transform):
    """The batch once through each transform: all first views, then all second views, and so on.

    Args:
        views: Transforms, one for each of the V views.

    Shape:
        Values (B, ...) to (V B, ...).

    Examples:
        >>> batch = {"image": torch.rand(8, 3, 64, 64), "label": torch.arange(8)}
        >>> views = Views([RandomCrop(), RandomCrop(gray=0.2, blur=0.5)])(batch)
        >>> views["image"].shape, views["label"].shape
        (torch.Size([16, 3, 64, 64]), torch.Size([16]))
    """

    takes_8_bit = True

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
    high as the image. RandAugment is that of :func:`~datamodules.rand_augment.rand_augment`.

    Args:
        area: Range of the crop's share of the image's area, in (0, 1]. 1 is the whole image.
        ratio: Range of the crop's width over its height, drawn uniformly on a log scale.
        jitter: Half width j of the range [1 - j, 1 + j] of the factors of brightness, contrast
            and saturation, in [0, 1]. 0 leaves the colors unchanged.
        operations: Number of operations of RandAugment, at least 0. 0 turns RandAugment off.
        magnitude: Strength of these operations, in [0, 1].
        gray: Probability that an image loses its colors, in [0, 1]. 0 keeps all colors.
        blur: Share of the batch that is blurred by a Gaussian, in [0, 1], drawn anew each time. 0
            blurs none.
        sigma: Range of the Gaussian's standard deviation, in 224ths of the image's height.

    Examples:
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
        drawn = rand_augment(image, self.operations, self.magnitude)
        motion, factors = drawn.split([5, 3], dim=1)
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

    def finish(self, image: Tensor) -> None:
        number = round(self.blur * len(image))
        if number == 0:
            return
        chosen = torch.rand(len(image), device=image.device).argsort()[:number]
        low, high = (end * image.shape[2] / 224 for end in self.sigma)
        # On the CPU, because kornia and OpenCV read these values.
        sigma = low + (high - low) * torch.rand(number)
        size = 2 * math.ceil(3 * high) + 1
        backend = apply_opencv if image.device.type == "cpu" else apply_torch
        backend.blur(image, chosen, size, sigma)
