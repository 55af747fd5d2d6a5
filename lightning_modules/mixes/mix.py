"""Base class of mixes: what a module accepts as its ``mix``."""

from __future__ import annotations

from torch import nn


class Mix(nn.Module):
    """Batch to batch, with mixed images and soft labels; in training only.

    Attributes:
        rows: Meaning of even and odd rows, one of :data:`lightning_modules.batches.SAMPLERS`, if
            the mix needs pairs, of which it returns one row each. Empty for mixes of any batch,
            which keep the number of rows.
    """

    rows = ""
