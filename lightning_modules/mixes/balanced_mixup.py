"""Balanced-MixUp: blends instance-balanced with class-balanced images."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.batches import pairs
from lightning_modules.mixes.mix import Mix
from lightning_modules.mixes.mixup import blend, draw_lambda


class BalancedMixup(Mix):
    """Balanced-MixUp (https://arxiv.org/abs/2109.09850): mixup of two ways of sampling.

    x = (1 - lambda) x_I + lambda x_C and y = (1 - lambda) y_I + lambda y_C, where x_I is sampled
    with equal probability for all images, x_C with equal probability for all classes, and
    lambda ~ Beta(alpha, 1), whose mean is alpha / (alpha + 1). Needs batches of
    :class:`datamodules.samplers.Paired`, with x_I in even and x_C in odd rows: anchors ``natural``
    and partners ``balanced``.

    How much an image is blended does not depend on its class. But the more it is blended, the more
    its label is that of a class-balanced sample.

    Args:
        alpha: First parameter of the Beta distribution, above 0; 0.1 to 0.3 in the paper. Towards 0
            lambda is 0, so that images are not mixed; towards infinity it is 1, which is
            class-balanced sampling.
        per_image: Whether to draw lambda for each pair; the published code
            (https://github.com/agaldran/balanced_mixup) draws it once per batch.
        num_classes: Number of classes K; the command line takes it from the data.

    Raises:
        ModelError: The number of rows is odd.

    Shape:
        As for :class:`~lightning_modules.mixes.Mixup`, from 2 n rows to n rows.

    Examples:
        >>> batch = {"image": torch.rand(4, 3, 8, 8), "label": torch.tensor([0, 1, 0, 2])}
        >>> mixed = BalancedMixup(num_classes=3)(batch)
        >>> mixed["image"].shape, mixed["label"].shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2, 3]))
    """

    rows = "anchor and partner"

    def __init__(self, alpha: float = 0.2, per_image: bool = False, num_classes: int = 7) -> None:
        super().__init__()
        self.alpha = alpha
        self.per_image = per_image
        self.num_classes = num_classes

    @torch.no_grad()
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        natural, balanced = pairs(batch, self.rows, None)
        image = natural["image"]
        draws = len(image) if self.per_image else 1
        lam = draw_lambda(self.alpha, draws, image.device, beta=1.0)
        return blend(natural, balanced, 1 - lam, self.num_classes)
