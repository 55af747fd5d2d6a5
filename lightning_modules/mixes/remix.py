"""Remix: mixup whose labels favor the rarer class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.mixes.mixup import (
    Mixup,
    blend,
    blend_labels,
    draw_lambda,
    shuffled,
    soft_labels,
)


class Remix(Mixup):
    """Remix (https://arxiv.org/abs/2007.03943): mixup with labels in favor of the rarer class.

    Images are blended as by mixup, lambda x_i + (1 - lambda) x_j with lambda ~ Beta(alpha, alpha),
    and labels with another weight, lambda_y y_i + (1 - lambda_y) y_j, where n_i is the number of
    training images of i's class::

        lambda_y = 0       if n_i / n_j >= kappa and lambda < tau,
                   1       if n_i / n_j <= 1 / kappa and 1 - lambda < tau,
                   lambda  otherwise.

    So a mix of classes whose sizes differ by a factor of ``kappa`` has the label of the rarer one,
    if the image of the more frequent one has a weight below ``tau``. How an image is blended does
    not depend on its class, but the label of a blend does: it is rare more often than the label of
    an image that is not blended.

    Args:
        class_counts: Number of training images per class; the command line takes them from the
            data.
        alpha: Parameter of the Beta distribution, above 0, as for :class:`Mixup`.
        kappa: Smallest ratio of the classes' sizes at which the label changes, at least 1; 3 in the
            paper. Infinity gives mixup.
        tau: Weight of the more frequent image below which the label is that of the rarer one, in
            [0, 1]; 0.5 in the paper. 0 gives mixup, 1 the rarer label whatever the weights.
        per_image: Whether to draw lambda for each image instead of once per batch.
        num_classes: Number of classes K; the command line takes it from the data.

    Raises:
        ModelError: ``kappa`` or ``tau`` is out of range.

    Shape:
        As for :class:`Mixup`. n_i of a soft label is the mean of its classes' sizes.

    Examples:
        >>> batch = {"image": torch.rand(4, 3, 8, 8), "label": torch.tensor([0, 1, 0, 0])}
        >>> mixed = Remix(class_counts=[90, 10], tau=1.0, num_classes=2)(batch)
        >>> mixed["label"][1]  # of class 1, whatever it is blended with
        tensor([0., 1.])
    """

    class_counts: Tensor

    def __init__(
        self,
        class_counts: Sequence[int],
        alpha: float = 1.0,
        kappa: float = 3.0,
        tau: float = 0.5,
        per_image: bool = False,
        num_classes: int = 7,
    ) -> None:
        super().__init__(alpha, per_image, num_classes)
        if not kappa >= 1:
            raise ModelError(f"kappa={kappa} is out of range: set at least 1.")
        if not 0 <= tau <= 1:
            raise ModelError(f"tau={tau} is out of range: set 0 to 1.")
        self.kappa = kappa
        self.tau = tau
        counts = torch.tensor(class_counts, dtype=torch.float32)
        self.register_buffer("class_counts", counts, persistent=False)

    @torch.no_grad()
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        partners = shuffled(batch)
        image, label, partner = batch["image"], batch["label"], partners["label"]
        lam = draw_lambda(self.alpha, len(image) if self.per_image else 1, image.device)
        mixed = blend(batch, partners, lam, self.num_classes)
        lam = self.label_lambda(lam, label, partner)
        return mixed | {"label": blend_labels(label, partner, lam, self.num_classes)}

    def label_lambda(self, lam: Tensor, label: Tensor, partner: Tensor) -> Tensor:
        """lambda_y (B,), from lambda (B,) or (1,) and the labels of images and partners."""
        n, m = (soft_labels(y, self.num_classes) @ self.class_counts for y in (label, partner))
        rarer = (self.kappa * n <= m) & (1 - lam < self.tau)
        rarer_partner = (n >= self.kappa * m) & (lam < self.tau)
        return torch.where(rarer_partner, 0.0, torch.where(rarer, 1.0, lam))
