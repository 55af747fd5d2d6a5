"""mixup, and the random lambda and soft labels of all mixes of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Beta

from lightning_modules.mixes.mix import Mix

MIXED = ("image", "mask", "saliency")


class Mixup(Mix):
    """mixup (https://arxiv.org/abs/1710.09412, eq. 1): blends pairs of images and of labels.

    x = lambda x_i + (1 - lambda) x_j and y = lambda y_i + (1 - lambda) y_j, where j is i's partner
    in a permutation of the batch and lambda ~ Beta(alpha, alpha).

    Args:
        alpha: Parameter of the Beta distribution, above 0. Towards 0 lambda is 0 or 1, so that
            images are not mixed; at 1 lambda is uniform. The paper has 0.2 for ImageNet and 1 for
            CIFAR.
        per_image: Whether to draw lambda for each image; the published code draws it once per
            batch.
        num_classes: Number of classes K; the command line takes it from the data.

    Shape:
        ``image`` (B, 3, H, W), and ``mask`` and ``saliency`` (B, 1, H, W) if the batch has them,
        to the same shapes; ``label`` (B,), or soft (B, K) of an earlier mix, to soft (B, K).

    Examples:
        >>> batch = {"image": torch.rand(4, 3, 8, 8), "label": torch.tensor([0, 1, 2, 0])}
        >>> mixed = Mixup(alpha=0.2, num_classes=3)(batch)
        >>> mixed["image"].shape, mixed["label"].shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 3]))
    """

    def __init__(self, alpha: float = 0.2, per_image: bool = False, num_classes: int = 7) -> None:
        super().__init__()
        self.alpha = alpha
        self.per_image = per_image
        self.num_classes = num_classes

    @torch.no_grad()
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        partners = shuffled(batch)
        image = batch["image"]
        lam = draw_lambda(self.alpha, len(image) if self.per_image else 1, image.device)
        return blend(batch, partners, lam, self.num_classes)


def shuffled(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Images, maps and labels of a batch in random order: a partner for each of its rows."""
    label = batch["label"]
    order = torch.randperm(len(label), device=label.device)
    return {k: batch[k][order] for k in (*MIXED, "label") if k in batch}


def draw_lambda(
    alpha: float, draws: int, device: torch.device, beta: float | None = None
) -> Tensor:
    """Samples (draws,) of Beta(alpha, beta) on ``device``; ``beta`` is ``alpha`` if None."""
    first = torch.full((draws,), alpha, device=device)
    second = first if beta is None else torch.full_like(first, beta)
    # Validation would read the values and so wait for the device.
    return Beta(first, second, validate_args=False).sample()


def blend(
    batch: dict[str, Tensor], partners: dict[str, Tensor], lam: Tensor, num_classes: int
) -> dict[str, Tensor]:
    """Blend each image, with the weight ``lam`` (B,) or (1,), with the same row of ``partners``.

    Encoded images, (B, C) or (B, C, h, w), are blended alike.
    """
    mixed = {k: batch[k] for k in MIXED if k in batch}
    planes = {
        k: torch.lerp(partners[k], v, lam.view(-1, *[1] * (v.ndim - 1))) for k, v in mixed.items()
    }
    label = blend_labels(batch["label"], partners["label"], lam, num_classes)
    return batch | planes | {"label": label}


def blend_labels(label: Tensor, partner: Tensor, lam: Tensor, num_classes: int) -> Tensor:
    """Labels (B,) or (B, K) of images and partners to soft labels (B, K): lam y + (1 - lam) y'."""
    return torch.lerp(
        soft_labels(partner, num_classes), soft_labels(label, num_classes), lam[:, None]
    )


def soft_labels(label: Tensor, num_classes: int) -> Tensor:
    """Labels (B,) to one-hot labels (B, K); soft labels (B, K) to themselves."""
    return label if label.ndim == 2 else F.one_hot(label, num_classes).float()
