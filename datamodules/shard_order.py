"""The order of an epoch for shards that do not fit on the machine at once."""

from __future__ import annotations

import numpy as np

from datamodules.data_folder import DataFolder
from datamodules.errors import DataError
from datamodules.samplers import EpochSampler


class ShardOrder(EpochSampler):
    """The images that another sampler draws, in an order that needs few shards at a time.

    The shards are shuffled, too. Images are sorted by s + window * u, where s is the position of
    their shard and u is uniform in [0, 1): images of about ``window`` shards are shuffled together,
    and shards follow each other steadily, so that no step waits for many of them.

    Args:
        sampler: Sampler of the images.
        shards: Shard of each of the N training images.
        window: Number of shards whose images are shuffled together, at least 1.

    Raises:
        DataError: The order of the sampler has a meaning, as in samplers of pairs.

    Examples:
        >>> from datamodules.samplers import Natural
        >>> order = ShardOrder(Natural([0] * 6), np.array([0, 0, 1, 1, 2, 2]), window=1)
        >>> shards = np.array([0, 0, 1, 1, 2, 2])[list(order)]
        >>> bool((shards[::2] == shards[1::2]).all())
        True
    """

    def __init__(self, sampler: EpochSampler, shards: np.ndarray, window: int) -> None:
        if sampler.ordered or hasattr(sampler, "pairs"):
            raise DataError(
                f"data.window changes the order of images, which is fixed by "
                f"{type(sampler).__name__}: set data.window=null, or another data.sampler."
            )
        self.sampler = sampler
        self.shards = shards
        self.window = window
        super().__init__(sampler.labels.tolist())

    def place(self, **point: int) -> None:  # type: ignore[override]
        super().place(**point)
        self.sampler.place(**point)

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.sampler.set_epoch(epoch)

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        order = self.sampler.draw(generator)
        number = generator.permutation(self.shards.max() + 1)[self.shards[order]]
        return order[np.argsort(number + self.window * generator.random(len(order)))]


def shards_of(rows: np.ndarray, folder: DataFolder) -> np.ndarray:
    """The shard of each of some rows (N,) of a data set's arrays.

    Raises:
        DataError: The data set is not in shards.
    """
    if folder.images_per_shard is None:
        raise DataError(
            f"data.window is for images in shards, which {folder.root} does not have: set "
            "data.window=null."
        )
    return rows // folder.images_per_shard
