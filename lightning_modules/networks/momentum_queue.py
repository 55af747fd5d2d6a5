"""Momentum contrast: key network by moving average, queue of keys, and class prototypes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MomentumQueue(nn.Module):
    """First-in, first-out queue of keys (https://arxiv.org/abs/1911.05722, section 3.2).

    Embeddings, labels and pointer are saved in checkpoints. Empty slots have the label -1; the
    published code of PaCo fills them with random labels, which are false positives.

    Args:
        size: Number of slots Q; 0 disables the queue.
        embedding: Dimension D of the keys.
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
        """Add keys (M, D) and labels (M,) of all processes, in the same order in each process."""
        size, coming = len(self.label), len(label)
        if size == 0:
            return
        passed = max(0, coming - size)  # if there are more keys than slots, the last keys remain
        slots = (self.pointer + torch.arange(passed, coming, device=label.device)) % size
        self.embedding[slots] = keys[passed:].to(self.embedding.dtype)
        self.label[slots] = label[passed:]
        self.pointer.copy_((self.pointer + coming) % size)


class MomentumPrototypes(nn.Module):
    """Moving mean of the keys of each class on the unit sphere, saved in checkpoints.

    The label of a class is -1 until the class has occurred.

    Args:
        num_classes: Number of classes K.
        embedding: Dimension D of the keys.
        momentum: Weight of the old prototype when its class is in the batch, in [0, 1); 0 takes
            the mean of the batch.
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
        """Update the prototypes by keys (M, D) of length 1 and labels (M,) of all processes."""
        classes = torch.arange(len(self.label), device=label.device)
        members = (label == classes[:, None]).to(self.embedding.dtype)  # (K, M)
        with torch.autocast(keys.device.type, enabled=False):
            mean = F.normalize(members @ keys.to(members.dtype), dim=1)
        known = (self.label >= 0)[:, None].to(mean.dtype)
        moved = torch.lerp(mean, self.embedding, self.momentum * known)
        present = members.any(1)
        self.embedding.copy_(torch.where(present[:, None], F.normalize(moved), self.embedding))
        self.label.copy_(torch.where(present, classes, self.label))


@torch.no_grad()
def follow(follower: nn.Module, network: nn.Module, momentum: float) -> None:
    """Update parameters by an exponential moving average (https://arxiv.org/abs/1911.05722, eq. 2).

    Buffers, such as the running statistics of batch norm, are not updated.

    Args:
        follower: Key network; its parameters theta_k become m theta_k + (1 - m) theta_q.
        network: Network with the parameters theta_q; those that the follower lacks, such as a
            predictor's, are ignored.
        momentum: Weight m of the old parameters; 0 copies theta_q, 1 keeps theta_k.
    """
    average = get_ema_multi_avg_fn(momentum)  # one kernel for all parameters
    following = dict(follower.named_parameters())
    followed = dict(network.named_parameters())
    average(list(following.values()), [followed[name] for name in following], None)
