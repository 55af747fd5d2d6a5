"""Tau-normalization: a linear classifier whose weights are divided by a power of their norms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.networks.network import Network, VectorNetwork


def tau_normalized(weight: Tensor, tau: float | Tensor) -> Tensor:
    """Weights w_c / ||w_c||^tau (https://arxiv.org/abs/1910.09217, section 4).

    Args:
        weight: Weights (K, C) of a linear classifier, one row per class.
        tau: Exponent of the norms, a number or a scalar tensor. 0 changes nothing; 1 gives all
            classes weights of length 1.

    Examples:
        >>> tau_normalized(torch.tensor([[3.0, 4.0]]), 1.0)
        tensor([[0.6000, 0.8000]])
    """
    return weight / weight.norm(dim=1, keepdim=True) ** tau


class TauNormalized(Network):
    """The network of a first stage with a tau-normalized classifier, which has no bias.

    https://arxiv.org/abs/1910.09217, section 4. The weights of frequent classes are longer, which
    prefers them; tau says how much of that is taken back.
    :class:`~lightning_modules.TauNormalization` chooses it on the validation split. The first
    stage itself has a bias, so its logits are not those of tau 0.

    Args:
        network: Network of the first stage, with a linear classifier.
        tau: Exponent of the norms, a buffer of the checkpoint. 0 only leaves out the bias.

    Shape:
        Images (B, 3, H, W) to logits (B, K).

    Raises:
        ModelError: The classifier of ``network`` is not linear.
    """

    tau: Tensor

    def __init__(self, network: VectorNetwork, tau: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("tau", torch.full((), float(tau), device=network.linear.weight.device))

    def forward(self, images: Tensor) -> Tensor:
        return self.classified(images, self.tau[None])[0]

    def classified(self, images: Tensor, taus: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the logits (T, B, K) by each tau (T,)."""
        vectors = self.network.vectors(images)
        weight = self.network.linear.weight
        return torch.stack([F.linear(vectors, tau_normalized(weight, tau)) for tau in taus])
