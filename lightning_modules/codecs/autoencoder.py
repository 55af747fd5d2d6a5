"""The autoencoder, and the edge filter that may stand in front of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from lightning_modules.codecs.beginning import begin_as_cosines
from lightning_modules.codecs.codec import Codec, Reconstruction, centred, from_centred
from lightning_modules.errors import ModelError


class ZeroMean(nn.Module):
    """Kernels (C, 1, h, w) less their means: what is flat gives no response."""

    def forward(self, kernels: Tensor) -> Tensor:
        return kernels - kernels.mean((2, 3), keepdim=True)


class EdgeFilter(nn.Module):
    """A trainable physical layer: three 3 x 3 kernels on each colour, of zero mean.

    They begin as the Laplacian and Sobel's in x and y. Doctor proposes such a layer, see
    :class:`Autoencoder`, and does not describe it.

    Args:
        concatenate: Whether the image goes on beside its edges, or the edges alone.

    Shape:
        Images (B, 3, H, W) to (B, ``channels``, H, W): the image, and each kernel's edges of red,
        green and blue.
    """

    def __init__(self, concatenate: bool = True) -> None:
        super().__init__()
        self.concatenate, self.channels = concatenate, 12 if concatenate else 9
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
        laplacian = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]) / 4
        kernels = torch.stack([laplacian, sobel, sobel.T])[:, None]
        self.filter = nn.Conv2d(3, 9, 3, padding=1, padding_mode="replicate", groups=3, bias=False)
        self.filter.weight = nn.Parameter(kernels.repeat(3, 1, 1, 1))
        register_parametrization(self.filter, "weight", ZeroMean())

    def forward(self, images: Tensor) -> Tensor:
        edges = self.filter(images).unflatten(1, (3, 3)).transpose(1, 2).flatten(1, 2)
        return torch.cat([images, edges], dim=1) if self.concatenate else edges


class Autoencoder(Codec):
    """Two strided convolutions down to a latent, and two up.

    As in Doctor, "Insights from HAM10000 classification using learned compression"
    (https://deepimaging.io), values are counted: 128 x 128 x 3 = 49,152 to 32 x 32 x C, so that
    C = 8, 16 and 32 are 6x, 3x and 1.5x. The latent is of real numbers: there are no bits to count.

    The layers are ours. No ReLU stands between the skips, so a linear code of the image passes
    whole, and training begins with one: the latent is the C coarsest cosines of each 4 x 4 pixels
    and their sum the image, as in JPEG without its rounding. All that is learnt is on top of that.

    Args:
        latent_channels: C.
        width: Channels of the layers between; 12 hold the values of 2 x 2 pixels.
        physical: A layer in front, with its ``channels``, such as :class:`EdgeFilter`; the first
            three take the place of the colours.

    Shape:
        Images (B, 3, H, W), H and W multiples of 4, to latent (B, C, H / 4, W / 4) and back.
    """

    stride = 4

    def __init__(
        self, latent_channels: int = 8, width: int = 64, physical: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        channels: int = 3 if physical is None else physical.channels  # type: ignore[assignment]
        self.g_a = nn.Sequential(
            physical or nn.Identity(),
            nn.Conv2d(channels, width, 5, stride=2, padding=2),
            ResidualBlock(width),
            nn.Conv2d(width, latent_channels, 5, stride=2, padding=2),
        )
        self.g_s = nn.Sequential(
            nn.ConvTranspose2d(latent_channels, width, 4, stride=2, padding=1),
            ResidualBlock(width),
            nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1),
        )
        begin_as_cosines(self.g_a, self.g_s)

    def reconstruct(self, images: Tensor) -> Reconstruction:
        latent = self.encode(images)
        return Reconstruction(self.decode(latent), latent=latent)

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the latent (B, C, H / 4, W / 4)."""
        require_multiple(images, self.stride)
        return self.g_a(centred(images))

    def decode(self, code: Tensor) -> Tensor:
        return from_centred(self.g_s(code))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a skip, at first the skip alone.

    No batch norm, which would blur what an image is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.second(F.relu(self.first(F.relu(features))))


def require_multiple(images: Tensor, stride: int) -> None:
    """Refuses images (B, C, H, W) that ``stride`` does not divide."""
    height, width = images.shape[2:]
    if height % stride or width % stride:
        raise ModelError(
            f"This codec halves images down to 1/{stride}: data.size must be a multiple of "
            f"{stride}, and images are {height} x {width}."
        )
