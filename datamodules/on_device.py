"""Copies of whole arrays on the model's device, from which a batch is selected there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import DataError
from datamodules.lesion_dataset import Arrays

# The network's own memory is not yet taken when data are placed; most of it must remain free.
FREE_SHARE = 0.25


def place(
    arrays: Mapping[str, np.ndarray], device: torch.device, wanted: bool | None = None
) -> Arrays:
    """Arrays as tensors on a device, or as they are if they are to stay in main memory.

    Each process copies the arrays to its own device.

    Args:
        arrays: Array (N, ...) of each name.
        device: Device of the model.
        wanted: Whether to copy them. By default to a GPU of which they fill at most a quarter of
            the free memory.

    Raises:
        DataError: The device has too little memory for the arrays, or they are in shards.

    Examples:
        >>> pixels = np.zeros((2, 8, 8, 3), np.uint8)
        >>> cpu = torch.device("cpu")
        >>> type(place({"image": pixels}, cpu)["image"]).__name__
        'ndarray'
        >>> type(place({"image": pixels}, cpu, wanted=True)["image"]).__name__
        'Tensor'
    """
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        if wanted:
            raise DataError("Images in shards cannot be copied whole: set --data.on_device=null.")
        return arrays
    needed = sum(array.nbytes for array in arrays.values())
    if wanted is None:
        wanted = device.type == "cuda" and needed <= FREE_SHARE * _free(device)
    if not wanted:
        return arrays
    try:
        return {name: _copied(array, device) for name, array in arrays.items()}
    except torch.OutOfMemoryError as error:
        raise DataError(
            f"The {needed / 1e9:.1f} GB of the data do not fit into the memory of {device}: set "
            "--data.on_device=false."
        ) from error


def _free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0]


def _copied(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy on the device, sent in parts because main memory may not hold the array."""
    copy = torch.empty(array.shape, dtype=torch.from_numpy(array[:0].copy()).dtype, device=device)
    for start in range(0, len(array), 1024):
        copy[start : start + 1024] = torch.tensor(array[start : start + 1024])
    return copy
