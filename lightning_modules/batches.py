"""Conventions about the rows of a batch: views one after the other, pairs alternating."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.errors import ModelError

Batch = dict[str, Tensor]

# Samplers by what their even and odd rows hold.
SAMPLERS = {
    "natural and reversed": "datamodules.samplers.Bilateral",
    "anchor and partner": "datamodules.samplers.Paired",
}


def views(batch: Batch, number: int, check: bool) -> list[Batch]:
    """Split a batch of :class:`datamodules.views.Views` into its views.

    Args:
        batch: Tensors (number B, ...) by name, one view after the other.
        number: Number of views in the batch.
        check: Whether to check that the views show the same images; synchronizes with a GPU.

    Raises:
        ModelError: The views do not show the same images.
    """
    parts = {name: value.chunk(number) for name, value in batch.items()}
    index = parts["index"]
    if check and not all(torch.equal(index[0], other) for other in index[1:]):
        raise ModelError(
            f"This method compares {number} views of each image: set data.train_transform to "
            f"datamodules.views.Views with {number} views."
        )
    return [{name: value[i] for name, value in parts.items()} for i in range(number)]


def pairs(batch: Batch, rows: str, sampler: object | None) -> tuple[Batch, Batch]:
    """Split a batch into its even and its odd rows, which a sampler has drawn as pairs.

    Args:
        batch: Tensors (2n, ...) by name.
        rows: Meaning of even and odd rows, one of :data:`SAMPLERS`.
        sampler: Sampler of the training batches, whose ``pairs`` must be ``rows``; None, outside a
            Trainer, is not checked.

    Returns:
        Tensors (n, ...) by name, of the even and of the odd rows.

    Raises:
        ModelError: The sampler draws no such pairs, or the number of rows is odd.
    """
    require_pairs(rows, sampler)
    if len(batch["label"]) % 2:
        raise ModelError(
            "This method needs an even batch in each process: make data.batch_size a multiple of "
            "twice the number of processes."
        )
    even, odd = ({name: value[first::2] for name, value in batch.items()} for first in (0, 1))
    return even, odd


def require_pairs(rows: str, sampler: object | None) -> None:
    """Require that a sampler draws pairs of the meaning ``rows``; None is not checked.

    Raises:
        ModelError: The sampler draws no such pairs.
    """
    if sampler is not None and getattr(sampler, "pairs", None) != rows:
        raise ModelError(
            f"This method needs pairs of {rows} images, which {type(sampler).__name__} does not "
            f"draw: set data.sampler to {SAMPLERS[rows]}."
        )
