"""Momentum contrast: a network that follows another, and a queue of what it made of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MomentumQueue(nn.Module):
    """The last keys, first in, first out (https://arxiv.org/abs/1911.05722, section 3.2).

    Embeddings, labels and pointer are in the checkpoint. Slots are empty, label -1, until they are
    filled; the published PaCo starts with random labels, which are false positives.

    Args:
        size: Q, of any size; 0 keeps nothing.
        embedding: D.
    """

    embedding: Tensor
    label: Tensor
    pointer: Tensor

    def __init__(self, size: int, embedding: int) -> None:
        super().__init__()
        self.register_buffer("embedding", torch.zeros(size, embedding))
        self.register_buffer("label", torch.full((size,), -1))
        self.register_buffer("pointer", torch.tensor(0))

    @torch.no_grad()
    def enqueue(self, keys: Tensor, label: Tensor) -> None:
        """Takes in keys (M, D) and labels (M,) of all processes, in the same order in each."""
        size, coming = len(self.label), len(label)
        if size == 0:
            return
        passed = max(0, coming - size)  # of more keys than slots the last stay
        slots = (self.pointer + torch.arange(passed, coming, device=label.device)) % size
        self.embedding[slots] = keys[passed:].to(self.embedding.dtype)
        self.label[slots] = label[passed:]
        self.pointer.copy_((self.pointer + coming) % size)


@torch.no_grad()
def follow(follower: nn.Module, network: nn.Module, momentum: float) -> None:
    """Exponential moving average of parameters (https://arxiv.org/abs/1911.05722, eq. 2).

    Buffers, such as the running statistics of batch norm, stay the follower's own.

    Args:
        follower: theta_k, which becomes m theta_k + (1 - m) theta_q.
        network: theta_q.
        momentum: m; 0 copies, 1 never moves.
    """
    for own, followed in zip(follower.parameters(), network.parameters(), strict=True):
        own.lerp_(followed.to(own.dtype), 1 - momentum)
