"""Failures as users read them: a sentence for what they can mend, a traceback for a defect."""

from __future__ import annotations

import errno
import linecache
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from callbacks.errors import RunError
from callbacks.recording.wandb_logger import ResilientWandbLogger
from callbacks.safety.checkpoint_io import DISK_FULL
from datamodules import DataError
from datamodules.memory import keep_freed_memory
from lightning_modules import ModelError

GPU = (
    "The memory of the GPU is full: lower data.batch_size or data.size, or halve the former and "
    "set --trainer.accumulate_grad_batches=2, in a new run with another --name if this one has a "
    "checkpoint; or set --trainer.precision=bf16-mixed or use more GPUs, in this run."
)
MAIN = (
    "The main memory is full: lower data.num_workers; or data.batch_size or data.size, in a new "
    "run with another --name if this one has a checkpoint."
)
NO_GPU = (
    "This asks for a GPU, and there is none: leave out trainer.accelerator, "
    "trainer.sync_batchnorm and the strategy fsdp."
)
NO_ACCELERATOR = (
    "This machine does not have the accelerator that is asked for: leave out trainer.accelerator."
)
FEW_GPUS = "This asks for more GPUs than there are: lower trainer.devices."
WANTS_GPU = (
    "only work with GPU modules",
    "requires a GPU accelerator",
    "No supported gpu backend found",
    "`CUDAAccelerator` can not run",
)
NTASKS = (
    "Slurm was asked for --ntasks: ask for --ntasks-per-node and set --trainer.devices to it, or "
    "train one process within this allocation with srun --ntasks=1."
)
ONE_IMAGE = "A batch of one image has no statistics: set data.batch_size to 2 or more for each GPU."
MISFIT = (
    "The checkpoint is of another network than these options build: give the config.yaml that lies "
    "beside it and no options of the model, at the commit that trained it."
)
LIBRARIES = ("pytorch_lightning", "lightning_fabric", "torch.optim", "torch.nn.modules.dropout")
SIGNS = ("DefaultCPUAllocator", "is killed by signal: Killed", "insufficient shared memory")
HINT = re.compile(r"pip install -U '([\w-]+)'(?!.*pip install)", re.DOTALL)  # Lightning's last
NOISE = (
    r".*LeafSpec",  # Lightning 2.6 asks torch 2.15 in the old way
    r"Found \d+ module\(s\) in eval mode at the start of training",  # a frozen encoder
    r"Checkpoint directory .* is not empty",  # normal when a run is resumed
    r".*does not have many workers",  # batches come from memory maps
    r"The number of training batches",
    r"The `srun` command is available",
    r"It is recommended to use .*sync_dist=True",  # the metrics are of all processes already
)


def mendable(error: BaseException | None) -> BaseException | None:
    """What users can mend among the causes of ``error``; jsonargparse wraps what it builds."""
    while error is not None and not isinstance(error, (DataError, RunError, ModelError)):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error


@contextmanager
def for_users() -> Iterator[None]:
    """What users can mend is one sentence, not a traceback."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    keep_freed_memory()
    try:
        yield
    except Exception as error:
        if (known := mendable(error) or explained(error)) is None:
            raise
        ResilientWandbLogger.finish(1)
        sys.exit(f"error: {known}")
    finally:
        ResilientWandbLogger.finish()


def explained(error: BaseException) -> RunError | None:
    """A sentence for what a library says: what is full, wants a GPU, or does not fit."""
    for cause in _causes(error):
        if isinstance(cause, torch.OutOfMemoryError):
            return RunError(GPU)
        if isinstance(cause, MemoryError) or any(sign in str(cause) for sign in SIGNS):
            return RunError(MAIN)
        if any(sign in str(cause) for sign in WANTS_GPU):
            return RunError(NO_GPU)
        if "can not run on your system" in str(cause):
            return RunError(NO_ACCELERATOR)
        if "You set `--ntasks=" in str(cause):
            return RunError(NTASKS)
        if "Expected more than 1 value per channel" in str(cause):
            return RunError(ONE_IMAGE)
        if "You requested gpu" in str(cause):
            return RunError(FEW_GPUS)
        if "Error(s) in loading state_dict" in str(cause):
            return RunError(MISFIT)
        if isinstance(cause, OSError) and cause.errno in DISK_FULL:
            where = cause.filename or "a file of the run"
            return RunError(
                f"The disk is full: {where} was not written; free some space and start the same "
                "command again."
            )
        if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            where = cause.filename or "A file of the run"
            return RunError(f"{where} cannot be opened ({cause.strerror}): correct its rights.")
        if isinstance(cause, ModuleNotFoundError) and (missing := HINT.search(str(cause))):
            return RunError(
                f"An option needs the package {missing[1]}, which is not installed: run "
                f"`pip install {missing[1]}`, or leave the option out."
            )
        if refusal := _refusal(cause):
            return RunError(f"These options do not go together or are out of range: {refusal}.")
    return None


def _refusal(error: BaseException) -> str | None:
    """What a library says where it refuses options itself, rather than fails on them."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return None
    code, module = frame.tb_frame.f_code, frame.tb_frame.f_globals.get("__name__", "")
    line = linecache.getline(code.co_filename, frame.tb_lineno).strip()
    if not line.startswith("raise ") or not module.startswith(LIBRARIES):
        return None
    return " ".join(str(error).split()).rstrip(".")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
