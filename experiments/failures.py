"""What users can mend although a library says it: what is full, wants a GPU, or does not fit."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from callbacks.checkpoint_io import DISK_FULL
from callbacks.errors import RunError

GPU = (
    "The memory of the GPU is full: lower data.batch_size or data.size, halve the former and set "
    "--trainer.accumulate_grad_batches=2, set --trainer.precision=bf16-mixed, or use more GPUs."
)
MAIN = "The main memory is full: lower data.num_workers, data.batch_size or data.size."
NO_GPU = (
    "This asks for a GPU, and there is none: leave out trainer.accelerator, "
    "trainer.sync_batchnorm and the strategy fsdp."
)
WANTS_GPU = (
    "only work with GPU modules",
    "requires a GPU accelerator",
    "No supported gpu backend found",
    "`CUDAAccelerator` can not run",
)
MISFIT = (
    "The checkpoint is of another network than this experiment builds: give the config.yaml that "
    "lies beside it."
)
SIGNS = ("DefaultCPUAllocator", "is killed by signal: Killed", "insufficient shared memory")


def explained(error: BaseException) -> RunError | None:
    """A sentence for ``error`` or one of its causes, or None for a defect."""
    for cause in _causes(error):
        if isinstance(cause, torch.OutOfMemoryError):
            return RunError(GPU)
        if isinstance(cause, MemoryError) or any(sign in str(cause) for sign in SIGNS):
            return RunError(MAIN)
        if any(sign in str(cause) for sign in WANTS_GPU):
            return RunError(NO_GPU)
        if "Error(s) in loading state_dict" in str(cause):
            return RunError(MISFIT)
        if isinstance(cause, OSError) and cause.errno in DISK_FULL:
            where = cause.filename or "a file of the run"
            return RunError(
                f"The disk is full: {where} was not written; free some space and start the same "
                "command again."
            )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
