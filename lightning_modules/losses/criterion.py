"""Base classes of losses: what a module accepts as ``criterion`` or ``contrastive``."""

from __future__ import annotations

from torch import nn


class Criterion(nn.Module):
    """Loss of logits (B, K) for labels (B,), or soft labels (B, K): a scalar.

    Modules also accept ``torch.nn.CrossEntropyLoss``, which has this form.
    """


class ContrastiveLoss(nn.Module):
    """Loss of a :class:`~lightning_modules.losses.contrastive.ContrastiveBatch`: a scalar."""
