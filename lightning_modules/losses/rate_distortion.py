"""Rate-distortion loss of codecs."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_modules.codecs import Reconstruction
from lightning_modules.errors import ModelError


class RateDistortionLoss(nn.Module):
    """Rate-distortion loss, lambda D + mu R, with the rate R in bits per pixel.

    For the R + lambda 255^2 MSE of papers on learned compression, use ``nn.MSELoss`` with a
    distortion weight of 65025 lambda and a rate weight of 1.

    Args:
        distortion: Loss of the reconstruction and the image; None is the mean absolute error.
        distortion_weight: Weight lambda of the distortion.
        rate_weight: Weight mu of the rate; at 0 the codec need not count bits.

    Examples:
        >>> import torch
        >>> images = torch.zeros(1, 3, 8, 8)
        >>> reconstruction = Reconstruction(images + 0.5, bits=torch.tensor([128.0]))
        >>> RateDistortionLoss(rate_weight=0.1)(images, reconstruction)
        tensor(0.7000)
    """

    def __init__(
        self,
        distortion: nn.L1Loss | nn.MSELoss | None = None,
        distortion_weight: float = 1.0,
        rate_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.distortion = distortion or nn.L1Loss()
        self.distortion_weight = distortion_weight
        self.rate_weight = rate_weight

    def forward(self, images: Tensor, reconstruction: Reconstruction) -> Tensor:
        """Loss of the reconstruction of images (B, 3, H, W), a scalar."""
        loss: Tensor = self.distortion_weight * self.distortion(reconstruction.image, images)
        if not self.rate_weight:
            return loss
        if reconstruction.bits is None:
            raise ModelError(
                "This codec does not count bits: set rate_weight to 0, or use a codec that counts "
                "them, such as lightning_modules.codecs.ScaleHyperprior."
            )
        return loss + self.rate_weight * reconstruction.bits.mean() / images[0, 0].numel()
