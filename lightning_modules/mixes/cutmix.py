"""CutMix: pastes a box of one image into another."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.mixes.mix import Mix
from lightning_modules.mixes.mixup import MIXED, blend_labels, draw_lambda, shuffled


class CutMix(Mix):
    """CutMix (https://arxiv.org/abs/1905.04899, eq. 1 and 2): pastes a box of the partner.

    lambda ~ Beta(alpha, alpha). The box has sqrt(1 - lambda) of the image's sides and a uniform
    center, and is clipped at the border of the image. The labels are weighted by the remaining
    area: lambda = 1 - area / (H W). As in the published code a box extends equally to both sides of
    its center, so its sides are even numbers of pixels.

    Args:
        alpha: Parameter of the Beta distribution, above 0; at 1 lambda is uniform, as in the
            paper.
        probability: Probability of mixing, in [0, 1]; the paper has 1 for ImageNet, the code 0.5
            for CIFAR.
        per_image: Whether to draw lambda, center and the decision to mix for each image; the
            published code draws them once per batch.
        num_classes: Number of classes K; the command line takes it from the data.

    Raises:
        ModelError: The images are encoded as vectors, which have no boxes.

    Shape:
        ``image`` (B, 3, H, W), and ``mask`` and ``saliency`` (B, 1, H, W) if the batch has them,
        to the same shapes; ``label`` (B,), or soft (B, K) of an earlier mix, to soft (B, K).

    Examples:
        >>> batch = {"image": torch.rand(4, 3, 8, 8), "label": torch.tensor([0, 1, 2, 0])}
        >>> mixed = CutMix(alpha=1.0, num_classes=3)(batch)
        >>> mixed["image"].shape, mixed["label"].shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 3]))
    """

    def __init__(
        self,
        alpha: float = 1.0,
        probability: float = 1.0,
        per_image: bool = False,
        num_classes: int = 7,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.probability = probability
        self.per_image = per_image
        self.num_classes = num_classes

    @torch.no_grad()
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.pasted(batch, shuffled(batch))

    def pasted(self, batch: dict[str, Tensor], sources: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch with a box of the same row of ``sources`` in each image."""
        image = batch["image"]
        if image.ndim != 4:
            raise ModelError(
                f"{type(self).__name__} pastes pixels, and these images are encoded as vectors: "
                "set --data.encoded=false, or choose a mix that blends images, such as Mixup."
            )
        lam = draw_lambda(self.alpha, len(image) if self.per_image else 1, image.device)
        # An empty box instead of a branch, which would wait for the device.
        lam = torch.where(torch.rand_like(lam) < self.probability, lam, 1.0)
        y, x = self.centers(sources, len(lam))
        height, width = image.shape[-2:]
        rows, columns = spanned(y, lam, height), spanned(x, lam, width)
        box = rows[:, None, :, None] & columns[:, None, None, :]  # (B or 1, 1, H, W)
        return paste(batch, sources, box, self.num_classes)

    def centers(self, sources: dict[str, Tensor], draws: int) -> tuple[Tensor, Tensor]:
        """Row and column of the center of each box, (draws,) or (B,)."""
        image = sources["image"]
        height, width = image.shape[-2:]
        y = torch.randint(height, (draws,), device=image.device)
        return y, torch.randint(width, (draws,), device=image.device)


def spanned(center: Tensor, lam: Tensor, length: int) -> Tensor:
    """Mask (B, length) of the rows or columns that each box spans."""
    half = (length * (1 - lam).sqrt()).long() // 2
    position = torch.arange(length, device=center.device)
    return (position >= (center - half)[:, None]) & (position < (center + half)[:, None])


def paste(
    batch: dict[str, Tensor], sources: dict[str, Tensor], box: Tensor, num_classes: int
) -> dict[str, Tensor]:
    """Paste the ``box`` (B, 1, H, W) or (1, 1, H, W) of the same row of ``sources``."""
    planes = {k: torch.where(box, sources[k], batch[k]) for k in MIXED if k in batch}
    lam = 1 - box.sum((1, 2, 3)) / box[0].numel()
    label = blend_labels(batch["label"], sources["label"], lam, num_classes)
    return batch | planes | {"label": label}
