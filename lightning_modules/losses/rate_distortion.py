"""Rate and distortion of a codec."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_modules.codecs import Reconstruction
from lightning_modules.errors import ModelError


class RateDistortionLoss(nn.Module):
    """Weighted distortion and rate, lambda D + mu R.

    R is in bits per pixel. Where the papers of learned compression write R + lambda 255^2 MSE,
    take ``nn.MSELoss`` with 65025 lambda for its weight, and 1 for that of the rate.

    Args:
        distortion: Reconstruction and image to a scalar; the mean absolute error if not given.
        distortion_weight: lambda.
        rate_weight: mu; 0 asks for no bits.
    """

    def __init__(
        self,
        distortion: nn.Module | None = None,
        distortion_weight: float = 1.0,
        rate_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.distortion = distortion or nn.L1Loss()
        self.distortion_weight, self.rate_weight = distortion_weight, rate_weight

    def forward(self, images: Tensor, seen: Reconstruction) -> Tensor:
        """Images (B, 3, H, W) and their reconstruction to a scalar."""
        loss: Tensor = self.distortion_weight * self.distortion(seen.image, images)
        if not self.rate_weight:
            return loss
        if seen.bits is None:
            raise ModelError(
                "This codec has no bits to weigh: leave out rate_weight, or take a codec that "
                "counts them, such as lightning_modules.codecs.ScaleHyperprior."
            )
        return loss + self.rate_weight * seen.bits.mean() / images[0, 0].numel()
