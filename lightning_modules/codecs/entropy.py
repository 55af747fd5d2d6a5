"""Entropy models: what a quantised value costs in bits."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST = 1e-9  # likelihood that a cost is counted with; 30 bits
LARGEST = 31  # hyper-latents are clipped here, which costs bits of the latent and nothing else
COUNTS = 2**16


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
    size, scale = values.abs(), log_scale.exp() * math.sqrt(2)
    # Of the lower tail, where the difference of two numbers near 1 would lose its digits.
    upper, lower = (torch.erfc((size - end) / scale) / 2 for end in (0.5, -0.5))
    return -lower_bound(upper - lower, LEAST).log2()


class FactorizedPrior(nn.Module):
    """A learned density for each channel, by itself (https://arxiv.org/abs/1802.01436, app. 6.1).

    Its cumulative is a small monotone network: c = sigmoid(f_4 ... f_1), where
    f(x) = g(softplus(H) x + b) and g(x) = x + tanh(a) tanh(x); the last g is the identity.

    Args:
        channels: C.
        filters: Widths between the four layers.

    Shape:
        Values (B, C, h, w) to their bits, same shape.
    """

    table: Tensor

    def __init__(self, channels: int, filters: tuple[int, ...] = (3, 3, 3)) -> None:
        super().__init__()
        widths = (1, *filters, 1)
        spread = 10.0 ** (1 / (len(widths) - 1))  # at first the density is some 10 wide
        self.matrices, self.biases, self.factors = (nn.ParameterList() for _ in range(3))
        for width, into in itertools.pairwise(widths):
            start = math.log(math.expm1(1 / spread / into))
            self.matrices.append(nn.Parameter(torch.full((channels, into, width), start)))
            self.biases.append(nn.Parameter(torch.rand(channels, into, 1) - 0.5))
            self.factors.append(nn.Parameter(torch.zeros(channels, into, 1)))
        self.factors[-1].requires_grad_(False)
        shape = channels, 2 * LARGEST + 1
        self.register_buffer("table", torch.ones(shape, dtype=torch.int32))
        self.update()

    def forward(self, values: Tensor) -> Tensor:
        return -lower_bound(self.likelihood(values), LEAST).log2()

    def likelihood(self, values: Tensor) -> Tensor:
        """c(x + 1/2) - c(x - 1/2)."""
        lower, upper = self.logits(values - 0.5), self.logits(values + 0.5)
        # Of the lower tail, where the difference of two numbers near 1 would lose its digits.
        sign = -(lower + upper).sign().detach()
        return ((sign * upper).sigmoid() - (sign * lower).sigmoid()).abs()

    def logits(self, values: Tensor) -> Tensor:
        """Those of the cumulative, of values (B, C, h, w)."""
        batch, channels, height, width = values.shape
        x = values.transpose(0, 1).reshape(channels, 1, -1)
        for matrix, bias, factor in zip(self.matrices, self.biases, self.factors, strict=True):
            x = F.softplus(matrix) @ x + bias
            x = x + factor.tanh() * x.tanh()
        return x.view(channels, batch, height, width).transpose(0, 1)

    @torch.no_grad()
    def update(self) -> None:
        """Counts (C, 63) of the whole numbers from -31 to 31, for the coder.

        They are kept with the weights, so that another machine has the same to the last digit.
        """
        symbols = torch.arange(-LARGEST, LARGEST + 1.0, device=self.table.device)
        values = symbols.expand(self.table.shape)[None, :, None]  # (1, C, 1, 63)
        counts = 1 + COUNTS * self.likelihood(values)[0, :, 0]
        self.table.copy_(counts.round().int())
