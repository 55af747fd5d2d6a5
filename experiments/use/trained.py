"""A trained run, brought back to be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from callbacks.errors import RunError
from callbacks.safety.checkpoint_io import load_state
from experiments.command_line.cli import ExperimentCLI, run_command
from experiments.use.apply import ONE_PROCESS, recorded
from lightning_modules import Compression


class Trained(ExperimentCLI):
    """Builds what ``predict`` would use, and leaves it at that."""

    def predict(self, **_: Any) -> None:
        model: nn.Module = self.model
        model.load_state_dict(load_state(self.config_init["predict"]["ckpt_path"])["state_dict"])
        model.eval()


def load(folder: Path, *options: str) -> Trained:
    """The classifier of a run with its best weights, on the CPU, and its data.

    Args:
        folder: The run folder.
        *options: Flags besides those that the run recorded.

    Raises:
        RunError: The folder has not all that a trained run has, or trained a codec.
    """
    arguments = ["predict", *recorded(folder), "--trainer.logger=false", *ONE_PROCESS, *options]
    cli = run_command(arguments, Trained)
    assert isinstance(cli, Trained)
    if isinstance(cli.model, Compression):
        raise RunError(f"{folder} trained a codec, which gives no diagnosis: take a classifier's.")
    return cli
