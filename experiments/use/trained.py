"""A trained run, brought back to be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from callbacks.errors import RunError
from callbacks.safety.checkpoint_io import load_state
from experiments.command_line.cli import ExperimentCLI, run_command
from lightning_modules import Compression

# Wherever a run was trained, it is used in one process here.
HERE = ("--trainer.accelerator=auto", "--trainer.devices=1", "--trainer.num_nodes=1",
        "--trainer.strategy=auto", "--trainer.sync_batchnorm=false")  # fmt: skip


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
    for name in ("config.yaml", "best.ckpt"):
        if not (folder / name).exists():
            raise RunError(f"{folder} has no {name}: train it until an epoch is validated.")
    recorded = ["predict", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/best.ckpt"]
    cli = run_command([*recorded, "--trainer.logger=false", *HERE, *options], Trained)
    assert isinstance(cli, Trained)
    if isinstance(cli.model, Compression):
        raise RunError(f"{folder} trained a codec, which gives no diagnosis: take a classifier's.")
    return cli
