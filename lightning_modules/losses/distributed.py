"""Statistics of the global batch: of all processes together. With one process, nothing happens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def global_sum(x: Tensor) -> Tensor:
    """Sum of ``x`` over the processes; it has the same shape and value in each of them.

    Its gradient is that of ``world_size * x``: data-parallel training averages the gradients of
    the processes, so they come out as those of one process with the concatenated batch.
    """
    if (world_size := _world_size()) == 1:
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return total + world_size * (x - x.detach())


def gather(x: Tensor) -> Tensor:
    """Concatenates ``x`` (B, ...) of all processes, without gradient; B must be the same in all."""
    x = x.detach().contiguous()
    if (world_size := _world_size()) == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world_size)]
    dist.all_gather(parts, x)
    return torch.cat(parts)
