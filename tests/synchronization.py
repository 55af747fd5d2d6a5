"""Where a training step would wait for a GPU, found on a CPU.

The host waits where it reads a value from the device, or needs one for the shape of a result.
"""

import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization
from pytorch_lightning.trainer import call
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from datamodules import apply_opencv, apply_torch, transforms
from datamodules.lesion_data import LesionData

aten = torch.ops.aten
READING = {
    aten._local_scalar_dense.default,  # item(), float(), if tensor:
    aten.is_nonzero.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
METHODS = ("cpu", "numpy", "tolist")

INTERNAL = ("/tests/synchronization.py", "/torch/_", "/torch/utils/_")
PERMITTED = {
    "torch/optim/": "optimizers count their steps on the CPU",
    "callbacks/safety/finite_loss.py": "waits for the forward pass while the backward pass runs",
    "lightning_modules/batches.py": "checks the first batch only",
    "lightning_modules/codecs/image_files.py": "JPEG files are written on the CPU",
    "lightning_modules/mixes/mixup_or_cutmix.py": "draws on the CPU",
    "kornia/filters/": "reads the widths of filters, which are drawn on the CPU",
}


class Waits(TorchDispatchMode):
    """Records the operations of a block for which the host would wait.

    Attributes:
        places: Each operation with the lines that led to it, innermost first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READING or (func in INDEXING and _by_mask(args[1])):
            self.record(str(func))
        return func(*args, **(kwargs or {}))

    def record(self, operation: str) -> None:
        lines = [f"{f.filename}:{f.lineno}" for f in reversed(traceback.extract_stack())]
        lines = [line for line in lines if not any(place in line for place in INTERNAL)]
        if not any(place in lines[0] for place in PERMITTED):
            self.places.append(f"{operation} at {', '.join(lines[:5])}")


def _by_mask(indices: Any) -> bool:
    return any(index is not None and index.dtype == torch.bool for index in indices)


def _one_hot(label: Tensor, num_classes: int) -> Tensor:
    """``F.one_hot`` as on a GPU, where it does not check the labels."""
    return (label[..., None] == torch.arange(num_classes, device=label.device)).long()


@contextmanager
def waits() -> Iterator[list[str]]:
    """Record where a block would wait for a GPU."""

    def told(name: str) -> Any:
        method = getattr(Tensor, name)

        def call_told(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            found.record(f"Tensor.{name}")
            return method(tensor, *args, **kwargs)

        return mock.patch.object(Tensor, name, call_told)

    with Waits() as found, ExitStack() as patches:
        patches.enter_context(mock.patch.object(F, "one_hot", _one_hot))
        for name in METHODS:
            patches.enter_context(told(name))
        yield found.places


@contextmanager
def waits_of_training() -> Iterator[list[str]]:
    """Record where the training steps of a block would wait for a GPU.

    Looked at are augmentation as on a GPU, the step with its backward pass and optimizer, and what
    callbacks do at every batch.
    """
    places: list[str] = []

    def watched(function: Any, when: Any = lambda *_: True) -> Any:
        def watch(*args: Any, **kwargs: Any) -> Any:
            if not when(*args):
                return function(*args, **kwargs)
            with waits() as found:
                try:
                    return function(*args, **kwargs)
                finally:
                    places.extend(found)

        return watch

    hooks = call._call_callback_hooks
    every_batch = watched(hooks, lambda trainer, hook, *_: "train_batch" in hook)
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(transforms, "is_8_bit_on_cpu", return_value=False))
        patches.enter_context(mock.patch.object(apply_opencv, "blur", apply_torch.blur))
        patches.enter_context(mock.patch.object(call, "_call_callback_hooks", every_batch))
        for owner, name in (
            (LesionData, "on_after_batch_transfer"),
            (_AutomaticOptimization, "run"),
        ):
            watch = watched(getattr(owner, name))
            patches.enter_context(mock.patch.object(owner, name, watch))
        yield places
