"""Augmentations from batch to batch: drawn here, applied by OpenCV on a CPU, else by torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datamodules.apply_opencv import change, is_8_bit_on_cpu
from datamodules.apply_torch import GEOMETRIC, adjust, warp
from datamodules.errors import DataError
from datamodules.loader import to_floats
from datamodules.rand_augment import affine, rand_augment
from datamodules.random_erasing import erase

ORIENTATIONS = 8  # flips and quarter turns: a lesion has no canonical orientation


class Transform(nn.Module, ABC):
    """Base of the augmentations that ``data.train_transform`` accepts: batch to batch.

    Attributes:
        takes_8_bit: Whether pixels may be uint8 from 0 to 255. Otherwise they are converted to
            floats in [0, 1] before the transform.
    """

    takes_8_bit = False

    @abstractmethod
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The transformed batch, which may hold several views of each image."""


class RandomTransform(Transform):
    """Base of augmentations by a random affine warp and random colors, drawn for each image.

    Image, mask and saliency are warped together, as channels of one image, so they always
    agree. Regions outside the image are filled by reflection.

    Pixels of 8 bits on a CPU are transformed by OpenCV and rounded to 8 bits again, others by
    torch, in float32. The draws are the same.

    Shape:
        ``image`` (B, 3, H, W), ``mask`` and ``saliency`` (B, 1, H, W), same out; uint8 or in
        [0, 1], out in [0, 1].
    """

    takes_8_bit = True

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return make_views(batch, [self])

    @abstractmethod
    def draw(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the warp and the color change of each image (B, 3, H, W).

        Returns:
            The inverse affine maps (B, 2, 3), as in ``F.affine_grid``, and the factors (B, 3) of
            brightness, contrast and saturation.
        """

    def finish(self, image: Tensor) -> None:
        """Apply further changes to the images, in place, after warp and colors."""


@torch.no_grad()
def make_views(
    batch: dict[str, Tensor], transforms: Sequence[RandomTransform]
) -> dict[str, Tensor]:
    """One view of each image by each of V transforms: (B, ...) to (V B, ...).

    All views by the first transform come first, then those by the second, and so on.
    """
    maps, factors = zip(*(transform.draw(batch["image"]) for transform in transforms), strict=True)
    if is_8_bit_on_cpu(batch):
        batch = change(batch, torch.stack(maps), torch.cat(factors))
    else:
        batch = warp(to_floats(batch), torch.stack(maps))
        batch["image"] = adjust(batch["image"], torch.cat(factors))
    for transform, view in zip(transforms, batch["image"].chunk(len(transforms)), strict=True):
        transform.finish(view)
    return batch


class Augment(RandomTransform):
    """Random flips, rotation, zoom, shift and colors; optionally RandAugment and random erasing.

    Args:
        rotation: Largest angle, in degrees. The default allows any, because lesions have no
            canonical orientation; 0 turns rotation off.
        zoom: Range of the magnification, drawn uniformly on a log scale. (1, 1) turns zoom off.
        shift: Largest translation, as a share of the image's side, at least 0. 0 turns shifts off.
        brightness: Half width b of the range [1 - b, 1 + b] of the brightness factor, in [0, 1].
            0 leaves the brightness unchanged.
        contrast: Half width of the range of the contrast factor, about the mean luminance of the
            image, in [0, 1]. 0 leaves the contrast unchanged.
        saturation: Half width of the range of the saturation factor, about the luminance of each
            pixel, in [0, 1]. 0 leaves the saturation unchanged.
        operations: Number of operations of RandAugment, which follow, at least 0. 0 turns
            RandAugment off.
        magnitude: Strength of these operations, in [0, 1].
        erasing: Probability that a rectangle of an image is replaced by noise, in [0, 1]. Mask and
            saliency are not erased. 0 turns random erasing off.

    Examples:
        >>> batch = {"image": torch.rand(8, 3, 64, 64), "label": torch.zeros(8)}
        >>> Augment(rotation=90, zoom=(1.0, 1.2))(batch)["image"].shape
        torch.Size([8, 3, 64, 64])
    """

    def __init__(
        self,
        rotation: float = 180.0,
        zoom: tuple[float, float] = (0.8, 1.25),
        shift: float = 0.1,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        operations: int = 0,
        magnitude: float = 0.5,
        erasing: float = 0.0,
    ) -> None:
        super().__init__()
        self.rotation = math.radians(rotation)
        self.zoom = zoom
        self.shift = shift
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.operations = operations
        self.magnitude = magnitude
        self.erasing = erasing

    def draw(self, image: Tensor) -> tuple[Tensor, Tensor]:
        draws = torch.rand(len(image), 9, device=image.device).unbind(1)
        inverse, factors = self.geometry(*draws[:6]), self.colors(*draws[6:])
        if not self.operations:
            return inverse, factors
        drawn = rand_augment(image, self.operations, self.magnitude)
        motion, more = drawn.split([5, 3], dim=1)
        return inverse @ affine(motion), factors * more

    def finish(self, image: Tensor) -> None:
        if self.erasing:
            erase(image, self.erasing)

    def geometry(
        self, angle: Tensor, zoom: Tensor, dx: Tensor, dy: Tensor, flip_x: Tensor, flip_y: Tensor
    ) -> Tensor:
        """Inverse affine maps (B, 2, 3), as in ``F.affine_grid``, from uniform draws (B,)."""
        angle = self.rotation * (2 * angle - 1)
        low, high = (math.log(end) for end in self.zoom)
        scale = torch.exp(-(low + (high - low) * zoom))
        cos = scale * angle.cos()
        sin = scale * angle.sin()
        x = flip_x.round() * 2 - 1
        y = flip_y.round() * 2 - 1
        shift = 2 * self.shift  # affine_grid's image is two units wide
        rows = (cos * x, -sin * y, shift * (2 * dx - 1)), (sin * x, cos * y, shift * (2 * dy - 1))
        return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)

    def colors(self, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
        """Factors (B, 3) of brightness, contrast and saturation from uniform draws (B,)."""
        b = 1 + self.brightness * (2 * brightness - 1)
        c = 1 + self.contrast * (2 * contrast - 1)
        s = 1 + self.saturation * (2 * saturation - 1)
        return torch.stack([b, c, s], dim=1)


class RandomOrientation(Transform):
    """One of the eight flips and quarter turns of each image.

    Of images that a frozen encoder has encoded in all orientations (``data.encoded``), it chooses
    the encoding of the same orientation as it would turn the image to.

    Args:
        number: Number of orientations to choose from, 1 to 8. 1 leaves the images as they are, up
            to 4 are flips only, 8 are all symmetries of the square.

    Shape:
        ``image``, ``mask`` and ``saliency`` (B, C, H, W), same out and of the same type; or
        ``image`` (B, 8, ...), out (B, ...).

    Examples:
        >>> batch = {"image": torch.rand(4, 8, 1280).half(), "label": torch.zeros(4)}
        >>> RandomOrientation()(batch)["image"].shape
        torch.Size([4, 1280])
    """

    takes_8_bit = True

    def __init__(self, number: int = ORIENTATIONS) -> None:
        super().__init__()
        if not 1 <= number <= ORIENTATIONS:
            raise DataError(
                f"data.train_transform.number={number} is out of range: set 1 to {ORIENTATIONS}."
            )
        self.number = number

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        image = batch["image"]
        chosen = torch.randint(self.number, (len(image),), device=image.device)
        if image.ndim != 4:  # encoded
            return batch | {"image": image[torch.arange(len(image)), chosen].float()}
        turned = {name: batch[name].clone() for name in GEOMETRIC if name in batch}
        for number in range(1, self.number):
            rows = (chosen == number).nonzero().flatten()
            for planes in turned.values():
                planes[rows] = orient(planes[rows], number)
        return batch | turned


def orient(images: Tensor, number: int) -> Tensor:
    """Images (B, C, H, W) in one of eight orientations, numbered as for ``VIEWS``.

    Args:
        images: Images (B, C, H, W); H = W from number 4 on.
        number: 0 is the image itself, 1 to 3 are its flips, 4 to 7 the transposes of 0 to 3.
    """
    flips = [(), (-1,), (-2,), (-1, -2)][number % 4]
    images = images.flip(flips) if flips else images
    return images.transpose(-1, -2) if number >= 4 else images
