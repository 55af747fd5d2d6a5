"""A trained run, brought back to be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import nn

from callbacks.errors import RunError
from experiments.__main__ import ExperimentCLI, main


class Trained(ExperimentCLI):
    """Builds what ``predict`` would use, and leaves it at that."""

    def predict(self, **_: Any) -> None:
        model: nn.Module = self.model
        state = torch.load(self.config_init["predict"]["ckpt_path"], weights_only=True)
        model.load_state_dict(state["state_dict"])
        model.eval()


def load(folder: Path, *options: str) -> Trained:
    """The model of a run with its best weights, on the CPU, and its data.

    Args:
        folder: The run folder.
        *options: Flags besides those that the run recorded.

    Raises:
        RunError: The folder has not all that a trained run has.
    """
    for name in ("config.yaml", "best.ckpt"):
        if not (folder / name).exists():
            raise RunError(f"{folder} has no {name}: train it until an epoch is validated.")
    recorded = ["predict", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/best.ckpt"]
    cli = main([*recorded, "--trainer.logger=false", *options], Trained)
    assert isinstance(cli, Trained)
    return cli


def network(folder: Path, *options: str) -> tuple[LightningModule, Any]:
    """Model and data of :func:`load`."""
    cli = load(folder, *options)
    return cli.model, cli.datamodule
