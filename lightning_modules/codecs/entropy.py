"""Entropy models: the bits of quantized values."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_LIKELIHOOD = 1e-9  # so that a value has at most 30 bits
MAX_HYPER_LATENT = 31  # clipping hyper-latents costs bits of the latent and nothing else
TOTAL_COUNT = 2**16


class LowerBound(torch.autograd.Function):
    """max(x, bound), whose gradient also passes below the bound where it would raise x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient * ((x >= ctx.bound) | (gradient < 0)), None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    return LowerBound.apply(x, bound)


def gaussian_bits(values: Tensor, log_scale: Tensor) -> Tensor:
    """Bits of each value under N(0, sigma^2) convolved with U(-1/2, 1/2).

    https://arxiv.org/abs/1802.01436, section 3.
    """
    size = values.abs()
    scale = log_scale.exp() * math.sqrt(2)
    # The lower tail, because differences of two numbers near 1 would lose their digits.
    upper, lower = (torch.erfc((size - end) / scale) / 2 for end in (0.5, -0.5))
    return -lower_bound(upper - lower, MIN_LIKELIHOOD).log2()


class FactorizedPrior(nn.Module):
    """Factorized prior, a learned density per channel (https://arxiv.org/abs/1802.01436, app. 6.1).

    Its cumulative is a small monotone network: c = sigmoid(f_4 ... f_1), where
    f(x) = g(softplus(H) x + b) and g(x) = x + tanh(a) tanh(x); the last g is the identity.

    Args:
        channels: Number of channels C.
        filters: Widths between the four layers.

    Shape:
        Values (B, C, h, w) to their bits, same shape.

    Examples:
        >>> bits = FactorizedPrior(channels=2)(torch.zeros(1, 2, 4, 4))
        >>> bits.shape, bool((bits > 0).all())
        (torch.Size([1, 2, 4, 4]), True)
    """

    table: Tensor

    def __init__(self, channels: int, filters: tuple[int, ...] = (3, 3, 3)) -> None:
        super().__init__()
        widths = (1, *filters, 1)
        spread = 10.0 ** (1 / (len(widths) - 1))  # so that the initial density is about 10 wide
        self.matrices, self.biases, self.factors = (nn.ParameterList() for _ in range(3))
        for width, into in itertools.pairwise(widths):
            start = math.log(math.expm1(1 / spread / into))
            self.matrices.append(nn.Parameter(torch.full((channels, into, width), start)))
            self.biases.append(nn.Parameter(torch.rand(channels, into, 1) - 0.5))
            self.factors.append(nn.Parameter(torch.zeros(channels, into, 1)))
        self.factors[-1].requires_grad_(False)
        shape = channels, 2 * MAX_HYPER_LATENT + 1
        self.register_buffer("table", torch.ones(shape, dtype=torch.int32))
        self.update()

    def forward(self, values: Tensor) -> Tensor:
        return -lower_bound(self.likelihood(values), MIN_LIKELIHOOD).log2()

    def likelihood(self, values: Tensor) -> Tensor:
        """Likelihood c(x + 1/2) - c(x - 1/2) of values x (B, C, h, w)."""
        lower, upper = self.logits(values - 0.5), self.logits(values + 0.5)
        # The lower tail, because differences of two numbers near 1 would lose their digits.
        sign = -(lower + upper).sign().detach()
        return ((sign * upper).sigmoid() - (sign * lower).sigmoid()).abs()

    def logits(self, values: Tensor) -> Tensor:
        """Logits of the cumulative at values (B, C, h, w)."""
        batch, channels, height, width = values.shape
        x = values.transpose(0, 1).reshape(channels, 1, -1)
        for matrix, bias, factor in zip(self.matrices, self.biases, self.factors, strict=True):
            x = F.softplus(matrix) @ x + bias
            x = x + factor.tanh() * x.tanh()
        return x.view(channels, batch, height, width).transpose(0, 1)

    @torch.no_grad()
    def update(self) -> None:
        """Update the coder's counts (C, 63) of the whole numbers from -31 to 31.

        They are saved with the weights, so that they are identical on every machine.
        """
        symbols = torch.arange(-MAX_HYPER_LATENT, MAX_HYPER_LATENT + 1.0, device=self.table.device)
        values = symbols.expand(self.table.shape)[None, :, None]  # (1, C, 1, 63)
        counts = 1 + TOTAL_COUNT * self.likelihood(values)[0, :, 0]
        self.table.copy_(counts.round().int())
