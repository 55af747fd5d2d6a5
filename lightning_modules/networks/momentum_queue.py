"""Momentum contrast: a network that follows another, and a queue of what it made of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


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


class MomentumPrototypes(nn.Module):
    """A mean for each class, moving on the unit sphere; in the checkpoint.

    Label -1, until the class has been seen.

    Args:
        num_classes: K.
        embedding: D.
        momentum: What remains of a prototype where its class is in the batch; 0 takes the batch's.
    """

    embedding: Tensor
    label: Tensor

    def __init__(self, num_classes: int, embedding: int, momentum: float = 0.99) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("embedding", torch.zeros(num_classes, embedding))
        self.register_buffer("label", torch.full((num_classes,), -1))

    @torch.no_grad()
    def update(self, keys: Tensor, label: Tensor) -> None:
        """Takes in keys (M, D) of length 1 and labels (M,), those of all processes."""
        classes = torch.arange(len(self.label), device=label.device)
        own = (label == classes[:, None]).to(self.embedding.dtype)  # (K, M)
        with torch.autocast(keys.device.type, enabled=False):
            mean = F.normalize(own @ keys.to(own.dtype), dim=1)
        known = (self.label >= 0)[:, None].to(mean.dtype)
        moved = torch.lerp(mean, self.embedding, self.momentum * known)
        present = own.any(1)
        self.embedding.copy_(torch.where(present[:, None], F.normalize(moved), self.embedding))
        self.label.copy_(torch.where(present, classes, self.label))


@torch.no_grad()
def follow(follower: nn.Module, network: nn.Module, momentum: float) -> None:
    """Exponential moving average of parameters (https://arxiv.org/abs/1911.05722, eq. 2).

    Buffers, such as the running statistics of batch norm, stay the follower's own.

    Args:
        follower: theta_k, which becomes m theta_k + (1 - m) theta_q.
        network: theta_q; parameters that the follower lacks, such as a predictor's, are ignored.
        momentum: m; 0 copies, 1 never moves.
    """
    average = get_ema_multi_avg_fn(momentum)  # of all parameters in one kernel
    own, theirs = dict(follower.named_parameters()), dict(network.named_parameters())
    average(list(own.values()), [theirs[name] for name in own], None)
