"""Error messages: one sentence for what users can fix, a traceback for a defect."""

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
    "GPU memory is full: lower data.batch_size or data.size, or halve data.batch_size and "
    "set --trainer.accumulate_grad_batches=2 (in a new run with another --name if this one has a "
    "checkpoint); or, in this run, set --trainer.precision=bf16-mixed or use more GPUs."
)
MAIN = (
    "Main memory is full: lower data.num_workers; or lower data.batch_size or data.size (in a new "
    "run with another --name if this one has a checkpoint)."
)
NO_GPU = (
    "A GPU is required, and this machine has none: omit trainer.accelerator, "
    "trainer.sync_batchnorm and the strategy fsdp."
)
NO_ACCELERATOR = "This machine does not have the requested accelerator: omit trainer.accelerator."
FEW_GPUS = "More GPUs are requested than this machine has: lower trainer.devices."
WANTS_GPU = (
    "only work with GPU modules",
    "requires a GPU accelerator",
    "No supported gpu backend found",
    "`CUDAAccelerator` can not run",
)
NTASKS = (
    "The Slurm job sets --ntasks: set --ntasks-per-node and --trainer.devices to the same number, "
    "or train with one process in this allocation with srun --ntasks=1."
)
ONE_IMAGE = "Batch norm needs at least two images: set data.batch_size to 2 or more per GPU."
MISFIT = (
    "The checkpoint does not fit the network that these options build: pass the config.yaml "
    "beside it without model options, and use the commit that trained it."
)
LIBRARIES = ("pytorch_lightning", "lightning_fabric", "torch.optim", "torch.nn.modules.dropout")
SIGNS = ("DefaultCPUAllocator", "is killed by signal: Killed", "insufficient shared memory")
HINT = re.compile(r"pip install -U '([\w-]+)'(?!.*pip install)", re.DOTALL)  # Lightning's last
NOISE = (
    r".*LeafSpec",  # Lightning 2.6 calls a deprecated function of torch 2.15
    r"Found \d+ module\(s\) in eval mode at the start of training",  # a frozen encoder
    r"Checkpoint directory .* is not empty",  # expected when a run resumes
    r".*does not have many workers",  # reading memory maps needs few
    r"The number of training batches",
    r"The `srun` command is available",
    r"It is recommended to use .*sync_dist=True",  # metrics already cover all processes
)


def fixable(error: BaseException | None) -> BaseException | None:
    """The first cause of ``error`` that users can fix; jsonargparse wraps those of constructors."""
    while error is not None and not isinstance(error, (DataError, RunError, ModelError)):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error


@contextmanager
def for_users() -> Iterator[None]:
    """Print errors that users can fix as one sentence and exit; let others raise."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    keep_freed_memory()
    try:
        yield
    except Exception as error:
        if (known := fixable(error) or explained(error)) is None:
            raise
        ResilientWandbLogger.finish(1)
        sys.exit(f"error: {known}")
    finally:
        ResilientWandbLogger.finish()


def explained(error: BaseException) -> RunError | None:
    """A sentence for errors of libraries about memory, disk, devices or options that do not fit."""
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
                f"The disk is full: {where} was not written. Free some space and run the same "
                "command again."
            )
        if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            where = cause.filename or "A file of the run"
            return RunError(f"{where} cannot be opened ({cause.strerror}): fix its permissions.")
        if isinstance(cause, ModuleNotFoundError) and (missing := HINT.search(str(cause))):
            return RunError(
                f"An option needs the package {missing[1]}, which is not installed: run "
                f"`pip install {missing[1]}`, or leave the option out."
            )
        if refusal := _refusal(cause):
            return RunError(f"These options contradict each other or are out of range: {refusal}.")
    return None


def _refusal(error: BaseException) -> str | None:
    """The library's message, if the library itself raised the error to refuse options."""
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
