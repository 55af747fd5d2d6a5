"""The scale hyperprior: a codec of real bits."""

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
from lightning_modules.codecs.beginning import begin_as_cosines
from lightning_modules.codecs.codec import Codec, Reconstruction, centred, from_centred
from lightning_modules.codecs.entropy import LARGEST, FactorizedPrior, gaussian_bits, lower_bound
from lightning_modules.errors import ModelError

MOST = 1023  # latents are clipped here; on images they stay far below
FRACTION = 2.0**14  # of which the numbers of a fixed-point network are whole multiples
LOG_SCALES = math.log(0.11), math.log(256)  # of the smallest and the largest sigma
LEVELS = 64
STEP = (LOG_SCALES[1] - LOG_SCALES[0]) / (LEVELS - 1)
SCALES = np.array([round(math.exp(LOG_SCALES[0] + i * STEP) * FRACTION) for i in range(LEVELS)])


class GDN(nn.Module):
    """Generalised divisive normalisation, or its inverse (https://arxiv.org/abs/1511.06281).

    y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2).

    Args:
        channels: C.
        inverse: Multiply instead of dividing.

    Shape:
        (B, C, h, w) to the same.
    """

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        # Roots, so that their squares are positive; zeros would have no gradient. At first gamma
        # is small, 0.1 in the paper's code, for the linear code that codecs begin with to pass.
        self.beta = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter((0.001 * torch.eye(channels) + 2.0**-18).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        beta, gamma = lower_bound(self.beta, 1e-3).square(), self.gamma.square()
        norm = nn.functional.conv2d(x.square(), gamma[:, :, None, None], beta)
        return x * (norm.sqrt() if self.inverse else norm.rsqrt())


class ScaleHyperprior(Codec):
    """Variational codec with a scale hyperprior (https://arxiv.org/abs/1802.01436, section 3).

    The latent y is rounded, and range-coded under Gaussians of mean 0 whose scales a second,
    smaller code z tells. In training noise takes the place of rounding and bits are estimated; in
    evaluation they are counted: eight times the bytes of each image's stream.

    Streams must be decoded with the very scales that they were coded with. So z's own
    probabilities are whole numbers kept with the weights, and the network from z to the scales is
    evaluated in fixed point, in which no order of summation and no machine makes a difference.
    That network gives log sigma, where the paper's gives sigma through a last ReLU.

    Training begins with a linear code of coarse cosines, see :func:`begin_as_cosines`.

    Args:
        width: Channels of the layers, the paper's N.
        latent_channels: C, the paper's M.

    Shape:
        Images (B, 3, H, W), H and W multiples of 16, to latent (B, C, H / 16, W / 16) and back.
    """

    stride = 16

    def __init__(self, width: int = 128, latent_channels: int = 192) -> None:
        super().__init__()
        n, m = width, latent_channels
        self.g_a = nn.Sequential(_down(3, n), GDN(n), _down(n, n), GDN(n))
        self.g_a.extend([_down(n, n), GDN(n), _down(n, m)])
        self.g_s = nn.Sequential(_up(m, n), GDN(n, True), _up(n, n), GDN(n, True))
        self.g_s.extend([_up(n, n), GDN(n, True), _up(n, 3)])
        self.h_a = nn.Sequential(nn.Conv2d(m, n, 3, padding=1), nn.ReLU(), _down(n, n), nn.ReLU())
        self.h_a.append(_down(n, n))
        self.h_s = nn.Sequential(_up(n, n), nn.ReLU(), _up(n, n), nn.ReLU())
        self.h_s.append(nn.Conv2d(n, m, 3, padding=1))  # to log sigma
        self.prior = FactorizedPrior(n)
        begin_as_cosines(self.g_a, self.g_s)

    def update(self) -> None:
        self.prior.update()

    def reconstruct(self, images: Tensor) -> Reconstruction:
        latent, hyper = self.latents(images)
        if self.training:
            log_scale = self.h_s(hyper)[..., : latent.shape[2], : latent.shape[3]]
            log_scale = lower_bound(log_scale, LOG_SCALES[0])
            each = self.prior(hyper), gaussian_bits(latent, log_scale)
            bits = torch.stack([part.flatten(1).sum(1) for part in each]).sum(0)
        else:
            bits = images.new_tensor([8.0 * len(stream) for stream in self.streams(latent, hyper)])
        return Reconstruction(self.decode(latent), bits, latent)

    def latents(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """y-hat (B, C, h, w) and z-hat, with noise in training and rounded otherwise."""
        require_multiple(images, self.stride)
        latent = self.g_a(centred(images))
        hyper = self.h_a(latent.abs())
        if self.training:
            latent, hyper = (x + torch.rand_like(x) - 0.5 for x in (latent, hyper))
            return latent, hyper
        return latent.round().clamp(-MOST, MOST), hyper.round().clamp(-LARGEST, LARGEST)

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the latent (B, C, H / 16, W / 16), quantised."""
        return self.latents(images)[0]

    def decode(self, code: Tensor) -> Tensor:
        return from_centred(self.g_s(code))

    @torch.no_grad()
    def compress(self, images: Tensor) -> list[bytes]:
        """A stream for each image.

        Raises:
            ModelError: In training mode, in which noise takes the place of rounding.
        """
        if self.training:
            raise ModelError("A codec in training mode writes no streams: call eval() first.")
        return self.streams(*self.latents(images))

    @torch.no_grad()
    def decompress(self, streams: list[bytes]) -> Tensor:
        """Images (B, 3, H, W) of streams of equally large ones."""
        height, width = struct.unpack_from("<BB", streams[0])
        words = (np.frombuffer(stream[2:], "<u4") for stream in streams)
        decoders = [constriction.stream.queue.RangeDecoder(each) for each in words]
        scales = self.scales(self.hyper_of(decoders, height, width), (height, width))
        symbols = [
            decoder.decode(_gaussian(), np.zeros(each.size), each.ravel())
            for decoder, each in zip(decoders, scales, strict=True)
        ]
        latent = torch.from_numpy(np.stack(symbols)).view(scales.shape)
        return self.decode(latent.to(self.prior.table.device, torch.float32))

    def streams(self, latent: Tensor, hyper: Tensor) -> list[bytes]:
        """The streams of quantised y and z."""
        scales, models = self.scales(hyper, latent.shape[2:]), self.models()
        y, z = (tensor.detach().cpu().int().numpy() for tensor in (latent, hyper))
        return [_stream(*one, models) for one in zip(y, z, scales, strict=True)]

    def hyper_of(self, decoders: list[Any], height: int, width: int) -> Tensor:
        """Quantised z (B, N, ., .), with which the streams of latents (., h, w) begin."""
        shape, models = (math.ceil(height / 4), math.ceil(width / 4)), self.models()
        symbols = [[one.decode(model, math.prod(shape)) for model in models] for one in decoders]
        return torch.from_numpy(np.array(symbols) - LARGEST).view(len(decoders), -1, *shape)

    def models(self) -> list[Any]:
        """The coder's model of each channel of z."""
        table = self.prior.table.double().cpu().numpy()
        return [constriction.stream.model.Categorical(row, perfect=False) for row in table]

    def scales(self, hyper: Tensor, shape: tuple[int, ...]) -> np.ndarray:
        """Of y, in (B, C, h, w), from quantised z: 64 levels, the same on any machine."""
        log_scale = fixed_point(self.h_s, hyper)[..., : shape[0], : shape[1]]
        level = ((log_scale - LOG_SCALES[0]) / STEP).round().clamp(0, LEVELS - 1)
        return SCALES[level.long().numpy()] / FRACTION


@torch.no_grad()
def fixed_point(layers: nn.Sequential, x: Tensor) -> Tensor:
    """What convolutions and ReLUs give in multiples of 2^-14, exactly.

    In float64 products of such numbers, and their sums below 2^25, are not rounded at all.
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
        encoder.encode(channel.ravel() + LARGEST, model)
    encoder.encode(latent.ravel(), _gaussian(), np.zeros(latent.size), scales.ravel())
    words = encoder.get_compressed().astype("<u4")
    return struct.pack("<BB", *latent.shape[1:]) + words.tobytes()


def _gaussian() -> Any:
    return constriction.stream.model.QuantizedGaussian(-MOST, MOST)


def _down(into: int, out: int) -> nn.Module:
    return nn.Conv2d(into, out, 5, stride=2, padding=2)


def _up(into: int, out: int) -> nn.Module:
    return nn.ConvTranspose2d(into, out, 5, stride=2, padding=2, output_padding=1)
