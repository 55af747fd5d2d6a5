"""Base class of mixes: what a module accepts as its ``mix``."""

from __future__ import annotations

from torch import nn


class Mix(nn.Module):
    """Batch to batch, with mixed images and soft labels; in training only."""
