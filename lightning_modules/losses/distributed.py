"""Statistics of the global batch, over all processes; with one process they are its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank of this process, from 0."""
    return dist.get_rank() if _world_size() > 1 else 0


def global_sum(x: Tensor) -> Tensor:
    """Sum ``x`` over the processes; the result has the same shape and value in each of them.

    The gradient is that of ``world_size * x``: data-parallel training averages the gradients of
    the processes, so they equal those of one process with the concatenated batch.
    """
    if (world_size := _world_size()) == 1:
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return total + world_size * (x - x.detach())


def gather(x: Tensor) -> Tensor:
    """Concatenate ``x`` (B, ...) of all processes, without gradient; B must be equal in all."""
    x = x.detach().contiguous()
    if (world_size := _world_size()) == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world_size)]
    dist.all_gather(parts, x)
    return torch.cat(parts)


def gather_with_gradient(x: Tensor) -> Tensor:
    """Concatenate ``x`` (B, ...) of all processes; B must be equal in all.

    Each process receives the gradients of all processes with respect to its ``x``. With losses
    reduced by :func:`global_sum`, data-parallel gradients then equal those of one process.
    """
    return x if _world_size() == 1 else _Gather.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return gather(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient.chunk(_world_size())[rank()]
