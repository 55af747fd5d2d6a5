"""mixup, and what all mixes share: the draw of lambda and soft labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Beta

MIXED = ("image", "mask", "saliency")


class Mixup(nn.Module):
    """mixup (https://arxiv.org/abs/1710.09412, eq. 1): pairs of images and labels, blended.

    x = lambda x_i + (1 - lambda) x_j and y = lambda y_i + (1 - lambda) y_j, where j is i's partner
    in a permutation of the batch and lambda ~ Beta(alpha, alpha).

    Args:
        alpha: Above 0; towards 0 images stay apart, 1 draws lambda evenly. The paper has 0.2 for
            ImageNet and 1 for CIFAR.
        per_image: Draws lambda for each image; the published code draws it once for a batch.
        num_classes: K; the command line takes it from the data.

    Shape:
        ``image`` (B, 3, H, W), ``mask`` and ``saliency`` (B, 1, H, W) where the batch has them,
        same out; ``label`` (B,), or soft (B, K) from a mix before this one, to soft (B, K).
    """

    def __init__(self, alpha: float = 0.2, per_image: bool = False, num_classes: int = 7) -> None:
        super().__init__()
        self.alpha, self.per_image, self.num_classes = alpha, per_image, num_classes

    @torch.no_grad()
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        image = batch["image"]
        partner = torch.randperm(len(image), device=image.device)
        lam = draw_lambda(self.alpha, len(image) if self.per_image else 1, image.device)
        return blend(batch, partner, lam, self.num_classes)


def draw_lambda(alpha: float, draws: int, device: torch.device) -> Tensor:
    """As many draws (draws,) from Beta(alpha, alpha), on ``device``."""
    concentration = torch.full((draws,), alpha, device=device)
    # Unvalidated, because a look at the values would wait for the device.
    return Beta(concentration, concentration, validate_args=False).sample()


def blend(
    batch: dict[str, Tensor], partner: Tensor, lam: Tensor, num_classes: int
) -> dict[str, Tensor]:
    """Each image with weight ``lam`` (B,) or (1,), its ``partner`` (B,) with the rest."""
    weight = lam.view(-1, 1, 1, 1)
    planes = {k: torch.lerp(batch[k][partner], batch[k], weight) for k in MIXED if k in batch}
    return batch | planes | {"label": blend_labels(batch["label"], partner, lam, num_classes)}


def blend_labels(label: Tensor, partner: Tensor, lam: Tensor, num_classes: int) -> Tensor:
    """Labels (B,) or (B, K) to soft labels (B, K): lam y_i + (1 - lam) y_j."""
    soft = label if label.ndim == 2 else F.one_hot(label, num_classes).float()
    return torch.lerp(soft[partner], soft, lam[:, None])
