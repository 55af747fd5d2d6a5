"""The dataset that serves cached pixels of lesions, a whole batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

Arrays = Mapping[str, np.ndarray | Tensor]


class LesionDataset(Dataset[dict[str, Tensor]]):
    """Images of one split, fetched a batch at a time from cached arrays.

    An item is a dict: ``image`` (3, H, W), ``mask`` and ``saliency`` (1, H, W), all uint8, with
    ``label`` and ``index``, the index of the image in ``table``.

    Args:
        arrays: Array of each name, with one row per image of the source: ``image`` (N, H, W, 3)
            and optionally ``mask`` and ``saliency`` (N, H, W); uint8, usually memory maps. Batches
            of tensors stay on their device, and are not for loading processes.
        table: Images of the split, with their ``row`` in the arrays and their ``label``.
    """

    def __init__(self, arrays: Arrays, table: pd.DataFrame) -> None:
        self.arrays = arrays
        self.rows = table["row"].to_numpy()
        self.labels = table["label"].to_numpy()
        self.index = table.index.to_numpy()

    def __getstate__(self) -> dict[str, object]:
        # Workers that are not forked reopen the maps; pickling would copy them whole.
        files = {name: getattr(array, "filename", array) for name, array in self.arrays.items()}
        return self.__dict__ | {"arrays": files}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.arrays = {
            name: np.load(array, mmap_mode="r") if isinstance(array, str | Path) else array
            for name, array in self.arrays.items()
        }

    @property
    def on_device(self) -> bool:
        """Whether batches are selected on a device, rather than read from main memory."""
        return any(isinstance(array, Tensor) for array in self.arrays.values())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([item]).items()}

    def __getitems__(self, items: Sequence[int]) -> dict[str, Tensor]:
        """A whole batch by one indexing of each array, which DataLoader prefers to single items."""
        return {
            **self.fetch(self.rows[items]),
            "label": torch.from_numpy(self.labels[items]),
            "index": torch.from_numpy(self.index[items]),
        }

    def fetch(self, rows: np.ndarray) -> Mapping[str, Tensor]:
        """Some rows of each array, as tensors (B, ...) by name."""
        return {name: channels_first(take(array, rows)) for name, array in self.arrays.items()}


def take(array: np.ndarray | Tensor, rows: np.ndarray) -> Tensor:
    """Some rows of an array, as a tensor on the array's device."""
    if isinstance(array, Tensor):
        return array[torch.from_numpy(rows).to(array.device, non_blocking=True)]
    return torch.from_numpy(array[rows])


def channels_first(pixels: Tensor) -> Tensor:
    """Pixels (B, H, W) or (B, H, W, 3) as (B, C, H, W)."""
    # A view, in the channels-last memory layout that convolutions prefer.
    return pixels.reshape(*pixels.shape[:3], -1).permute(0, 3, 1, 2)
