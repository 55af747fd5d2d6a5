"""Scale hyperprior: a learned codec with a range coder."""

from __future__ import annotations

import copy
import math
import struct
from typing import Any

import constriction
import numpy as np
import torch
from torch import Tensor, nn

from lightning_modules.codecs.autoencoder import require_multiple
from lightning_modules.codecs.codec import Codec, Reconstruction, centred, from_centred
from lightning_modules.codecs.cosine_initialization import initialize_with_cosines
from lightning_modules.codecs.entropy import (
    MAX_HYPER_LATENT,
    FactorizedPrior,
    gaussian_bits,
    lower_bound,
)
from lightning_modules.errors import ModelError

MAX_LATENT = 1023  # latents of images stay far below this clip
FRACTION = 2.0**14  # fixed-point numbers are whole multiples of 1 / FRACTION
LOG_SCALES = math.log(0.11), math.log(256)  # log of the smallest and the largest sigma
LEVELS = 64
STEP = (LOG_SCALES[1] - LOG_SCALES[0]) / (LEVELS - 1)
SCALES = np.array([round(math.exp(LOG_SCALES[0] + i * STEP) * FRACTION) for i in range(LEVELS)])


class GDN(nn.Module):
    """Generalized divisive normalization (https://arxiv.org/abs/1511.06281) or its inverse.

    y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2).

    Args:
        channels: Number of channels C.
        inverse: Whether to multiply instead of divide.

    Shape:
        Features (B, C, h, w) to features (B, C, h, w).
    """

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        # Square roots, so that their squares are positive; zeros would have no gradient. Gamma is
        # initially smaller than the 0.1 of the paper's code, to pass the initial linear code.
        self.beta = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter((0.001 * torch.eye(channels) + 2.0**-18).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        beta, gamma = lower_bound(self.beta, 1e-3).square(), self.gamma.square()
        norm = nn.functional.conv2d(x.square(), gamma[:, :, None, None], beta)
        return x * (norm.sqrt() if self.inverse else norm.rsqrt())


class ScaleHyperprior(Codec):
    """Variational codec with a scale hyperprior (https://arxiv.org/abs/1802.01436, section 3).

    The latent y is rounded and range-coded with zero-mean Gaussians, whose scales are transmitted
    in a second, smaller code z. In training, noise replaces rounding and bits are estimated; in
    evaluation they are counted, as eight times the bytes of each image's stream.

    A stream must be decoded with exactly the scales of its encoding. The probabilities of z are
    therefore integers saved with the weights, and the network from z to the scales runs in fixed
    point, so that its output does not depend on the order of summation or on the machine. That
    network predicts log sigma; the paper's predicts sigma through a last ReLU.

    Training starts from a linear code of coarse cosines, see :func:`initialize_with_cosines`.

    Args:
        width: Number of channels of the layers, at least 1; the paper's N.
        latent_channels: Number of channels C of the latent, at least 1; the paper's M.

    Shape:
        Images (B, 3, H, W), H and W multiples of 16, to latent (B, C, H / 16, W / 16) and back.

    Examples:
        >>> codec = ScaleHyperprior(width=8, latent_channels=12).eval()
        >>> images = torch.rand(1, 3, 32, 32)
        >>> streams = codec.compress(images)
        >>> bool(codec(images).bits[0] == 8 * len(streams[0]))
        True
        >>> codec.decompress(streams).shape
        torch.Size([1, 3, 32, 32])
    """

    stride = 16

    def __init__(self, width: int = 128, latent_channels: int = 192) -> None:
        super().__init__()
        n, m = width, latent_channels
        self.g_a = nn.Sequential(
            _down(3, n),
            GDN(n),
            _down(n, n),
            GDN(n),
            _down(n, n),
            GDN(n),
            _down(n, m),
        )
        self.g_s = nn.Sequential(
            _up(m, n),
            GDN(n, inverse=True),
            _up(n, n),
            GDN(n, inverse=True),
            _up(n, n),
            GDN(n, inverse=True),
            _up(n, 3),
        )
        self.h_a = nn.Sequential(
            nn.Conv2d(m, n, 3, padding=1),
            nn.ReLU(),
            _down(n, n),
            nn.ReLU(),
            _down(n, n),
        )
        self.h_s = nn.Sequential(
            _up(n, n),
            nn.ReLU(),
            _up(n, n),
            nn.ReLU(),
            nn.Conv2d(n, m, 3, padding=1),  # to log sigma
        )
        self.prior = FactorizedPrior(n)
        initialize_with_cosines(self.g_a, self.g_s)

    def update(self) -> None:
        self.prior.update()

    def reconstruct(self, images: Tensor) -> Reconstruction:
        latent, hyper = self.latents(images)
        if self.training:
            log_scale = self.h_s(hyper)[..., : latent.shape[2], : latent.shape[3]]
            log_scale = lower_bound(log_scale, LOG_SCALES[0])
            latent_bits = gaussian_bits(latent, log_scale).flatten(1).sum(1)
            bits = self.prior(hyper).flatten(1).sum(1) + latent_bits
        else:
            bits = images.new_tensor([8.0 * len(stream) for stream in self.streams(latent, hyper)])
        return Reconstruction(self.decode(latent), bits, latent)

    def latents(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Latent y-hat (B, C, h, w) and hyper-latent z-hat, noisy in training, else rounded."""
        require_multiple(images, self.stride)
        latent = self.g_a(centred(images))
        hyper = self.h_a(latent.abs())
        if self.training:
            latent, hyper = (x + torch.rand_like(x) - 0.5 for x in (latent, hyper))
            return latent, hyper
        return latent.round().clamp(-MAX_LATENT, MAX_LATENT), hyper.round().clamp(
            -MAX_HYPER_LATENT, MAX_HYPER_LATENT
        )

    def encode(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) to the quantized latent (B, C, H / 16, W / 16)."""
        return self.latents(images)[0]

    def decode(self, code: Tensor) -> Tensor:
        return from_centred(self.g_s(code))

    @torch.no_grad()
    def compress(self, images: Tensor) -> list[bytes]:
        """Compress each image to a stream.

        Raises:
            ModelError: The codec is in training mode, where noise replaces rounding.
        """
        if self.training:
            raise ModelError("A codec in training mode cannot write streams: call eval() first.")
        return self.streams(*self.latents(images))

    @torch.no_grad()
    def decompress(self, streams: list[bytes]) -> Tensor:
        """Decompress streams of equally large images to images (B, 3, H, W)."""
        height, width = struct.unpack_from("<BB", streams[0])
        words = (np.frombuffer(stream[2:], "<u4") for stream in streams)
        decoders = [constriction.stream.queue.RangeDecoder(stream) for stream in words]
        scales = self.scales(self.hyper_of(decoders, height, width), (height, width))
        symbols = [
            decoder.decode(_gaussian(), np.zeros(scale.size), scale.ravel())
            for decoder, scale in zip(decoders, scales, strict=True)
        ]
        latent = torch.from_numpy(np.stack(symbols)).view(scales.shape)
        return self.decode(latent.to(self.prior.table.device, torch.float32))

    def streams(self, latent: Tensor, hyper: Tensor) -> list[bytes]:
        """Streams of the quantized y and z of each image."""
        scales, models = self.scales(hyper, latent.shape[2:]), self.models()
        y, z = (tensor.detach().cpu().int().numpy() for tensor in (latent, hyper))
        return [_stream(*image, models) for image in zip(y, z, scales, strict=True)]

    def hyper_of(self, decoders: list[Any], height: int, width: int) -> Tensor:
        """Decode the quantized z (B, N, ., .) at the start of streams of latents (., h, w)."""
        shape, models = (math.ceil(height / 4), math.ceil(width / 4)), self.models()
        size = math.prod(shape)
        symbols = [[decoder.decode(model, size) for model in models] for decoder in decoders]
        return torch.from_numpy(np.array(symbols) - MAX_HYPER_LATENT).view(
            len(decoders), -1, *shape
        )

    def models(self) -> list[Any]:
        """Entropy model of each channel of z, for the coder."""
        table = self.prior.table.double().cpu().numpy()
        return [constriction.stream.model.Categorical(row, perfect=False) for row in table]

    def scales(self, hyper: Tensor, shape: tuple[int, ...]) -> np.ndarray:
        """Scales (B, C, h, w) of y from quantized z, in 64 levels; equal on any machine."""
        log_scale = fixed_point(self.h_s, hyper)[..., : shape[0], : shape[1]]
        level = ((log_scale - LOG_SCALES[0]) / STEP).round().clamp(0, LEVELS - 1)
        return SCALES[level.long().numpy()] / FRACTION


@torch.no_grad()
def fixed_point(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Evaluate convolutions and ReLUs exactly, in multiples of 2^-14.

    In float64, products of such numbers and their sums below 2^25 are exact.
    """
    layers = copy.deepcopy(layers).cpu().double()
    for parameter in layers.parameters():
        parameter.copy_((parameter * FRACTION).round() / FRACTION)
    x = x.cpu().double()
    for layer in layers:
        x = (layer(x) * FRACTION).round() / FRACTION
    return x


def _stream(latent: np.ndarray, hyper: np.ndarray, scales: np.ndarray, models: list[Any]) -> bytes:
    encoder = constriction.stream.queue.RangeEncoder()
    for channel, model in zip(hyper, models, strict=True):
        encoder.encode(channel.ravel() + MAX_HYPER_LATENT, model)
    encoder.encode(latent.ravel(), _gaussian(), np.zeros(latent.size), scales.ravel())
    words = encoder.get_compressed().astype("<u4")
    return struct.pack("<BB", *latent.shape[1:]) + words.tobytes()


def _gaussian() -> Any:
    return constriction.stream.model.QuantizedGaussian(-MAX_LATENT, MAX_LATENT)


def _down(into: int, out: int) -> nn.Module:
    return nn.Conv2d(into, out, 5, stride=2, padding=2)


def _up(into: int, out: int) -> nn.Module:
    return nn.ConvTranspose2d(into, out, 5, stride=2, padding=2, output_padding=1)
