"""How batches come to Lightning."""

from __future__ import annotations

import signal
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader


class ResumableLoader(DataLoader[Any]):
    """Tells Lightning that it resumes within an epoch; its sampler is placed where the run is."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def as_is(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the data set gives is a batch already."""
    return batch


def leave_signals_to_the_trainer(_: int) -> None:
    """Ctrl-C and Slurm tell every process; without its workers the trainer could not go on."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
