"""Data loaders that resume within an epoch, their collation and their workers' setup."""

from __future__ import annotations

import signal

import torch
from torch import Tensor
from torch.utils.data import DataLoader


class ResumableLoader(DataLoader[dict[str, Tensor]]):
    """A loader that declares to Lightning that it resumes within an epoch.

    Its state is empty, because its sampler is placed at the current step when it is made.
    """

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        pass


def keep_batch(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch as it is, because the data sets return whole batches."""
    return batch


def to_floats(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with its pixels in [0, 1] instead of 0 to 255."""
    pixels = {k: v.float().div_(255) for k, v in batch.items() if v.dtype == torch.uint8}
    return batch | pixels


def ignore_signals(_: int) -> None:
    """Leaves signals to the trainer, which needs its workers until it has saved a checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
