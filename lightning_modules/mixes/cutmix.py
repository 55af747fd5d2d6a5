"""CutMix: a box of one image in another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_modules.mixes.mixup import MIXED, blend_labels, draw_lambda


class CutMix(nn.Module):
    """CutMix (https://arxiv.org/abs/1905.04899, eq. 1 and 2): a box of the partner is pasted in.

    lambda ~ Beta(alpha, alpha); the box has sides sqrt(1 - lambda) of the image's, an even centre
    and what falls outside the image is cut off. The labels are weighted by the pixels that are
    then left: lambda = 1 - area / (H W). As in the published code a box reaches as far before its
    centre as behind it, so its sides are even numbers of pixels.

    Args:
        alpha: Above 0; 1 draws lambda evenly, as in the paper.
        probability: Of mixing at all; the paper has 1 for ImageNet, the code 0.5 for CIFAR.
        per_image: Draws lambda, centre and whether to mix for each image; the published code
            draws them once for a batch.
        num_classes: K; the command line takes it from the data.

    Shape:
        ``image`` (B, 3, H, W), ``mask`` and ``saliency`` (B, 1, H, W) where the batch has them,
        same out; ``label`` (B,), or soft (B, K) from a mix before this one, to soft (B, K).
    """

    def __init__(
        self,
        alpha: float = 1.0,
        probability: float = 1.0,
        per_image: bool = False,
        num_classes: int = 7,
    ) -> None:
        super().__init__()
        self.alpha, self.probability = alpha, probability
        self.per_image, self.num_classes = per_image, num_classes

    @torch.no_grad()
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        image = batch["image"]
        partner = torch.randperm(len(image), device=image.device)
        lam = draw_lambda(self.alpha, len(image) if self.per_image else 1, image.device)
        # An empty box, not a branch: whether to mix is known only on the device.
        lam = torch.where(torch.rand_like(lam) < self.probability, lam, 1.0)
        y, x = self.centres(batch, partner, len(lam))
        height, width = image.shape[-2:]
        rows, columns = spanned(y, lam, height), spanned(x, lam, width)
        box = rows[:, None, :, None] & columns[:, None, None, :]  # (B or 1, 1, H, W)
        return paste(batch, partner, box, self.num_classes)

    def centres(
        self, batch: dict[str, Tensor], partner: Tensor, draws: int
    ) -> tuple[Tensor, Tensor]:
        """Row and column of the centre of each box, (draws,) or (B,)."""
        image = batch["image"]
        height, width = image.shape[-2:]
        y = torch.randint(height, (draws,), device=image.device)
        return y, torch.randint(width, (draws,), device=image.device)


def spanned(centre: Tensor, lam: Tensor, length: int) -> Tensor:
    """Which of ``length`` rows or columns the boxes (B,) span, (B, length)."""
    half = (length * (1 - lam).sqrt()).long() // 2
    position = torch.arange(length, device=centre.device)
    return (position >= (centre - half)[:, None]) & (position < (centre + half)[:, None])


def paste(
    batch: dict[str, Tensor], partner: Tensor, box: Tensor, num_classes: int
) -> dict[str, Tensor]:
    """Each image with the box (B, 1, H, W) or (1, 1, H, W) of its ``partner`` (B,)."""
    planes = {k: torch.where(box, batch[k][partner], batch[k]) for k in MIXED if k in batch}
    lam = 1 - box.sum((1, 2, 3)) / box[0].numel()
    return batch | planes | {"label": blend_labels(batch["label"], partner, lam, num_classes)}
