"""Data loaders that resume within an epoch, their collation and their workers' setup."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from multiprocessing.context import BaseContext

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

GPU_WORKERS = 4


class ResumableLoader(DataLoader[dict[str, Tensor]]):
    """A loader that declares to Lightning that it resumes within an epoch.

    Its state is empty, because its sampler is placed at the current step when it is made.
    """

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        pass


def make_loader(
    dataset: Dataset[dict[str, Tensor]],
    order: Iterable[int],
    batch_size: int,
    device: torch.device,
    workers: int | None,
    train: bool,
    collate: Callable[..., dict[str, Tensor]],
    context: BaseContext | None = None,
) -> DataLoader[dict[str, Tensor]]:
    """A loader of whole batches.

    Args:
        dataset: Data set that fetches a batch at a time.
        order: Items in the order in which they are served.
        batch_size: Images per batch of this process.
        device: Device of the model.
        workers: Loading processes; None is 4 for a GPU and none for a CPU.
        train: Whether the batches are for training: complete, and resumable within an epoch.
        collate: Function of the batch as the data set returns it.
        context: How loading processes are started; by default as the system does.
    """
    on_gpu = device.type == "cuda"
    workers = workers if workers is not None else GPU_WORKERS * on_gpu
    return (ResumableLoader if train else DataLoader)(
        dataset,
        batch_size=batch_size,
        sampler=order,
        drop_last=train,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=on_gpu,
        collate_fn=collate,
        worker_init_fn=ignore_signals,
        multiprocessing_context=context if workers else None,
    )


def keep_batch(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch as it is, because the data sets return whole batches."""
    return batch


def to_floats(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with its pixels in [0, 1] instead of 0 to 255."""
    pixels = {k: v.float().div_(255) for k, v in batch.items() if v.dtype == torch.uint8}
    return batch | pixels


def ignore_signals(_: int) -> None:
    """Leave signals to the trainer, which needs its workers until it has saved a checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
