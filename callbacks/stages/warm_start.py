"""The second stage of a method begins with the weights of the first."""

from __future__ import annotations

import textwrap
from pathlib import Path

import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.errors import RunError
from callbacks.safety.checkpoint_io import epochs_done, finished, load_state


class WarmStart(Callback):
    """Loads weights of another run before a training starts; one that goes on has its own.

    Args:
        run: The other run's folder, whose ``best.ckpt`` is taken if that run is finished, or a
            checkpoint. ``{seed}`` in it is the seed of this run.
        source: The submodule there, by its dotted name.
        target: The submodule here that it is loaded into; the same name if not given.
        option: What ``run`` is called on the command line.

    Raises:
        RunError: There is no such checkpoint, its run is not finished, or it does not fit.
    """

    def __init__(
        self,
        run: Path,
        source: str = "network",
        target: str | None = None,
        option: str = "run",
    ) -> None:
        self.run, self.option = run, option
        self.source, self.target = source, target or source

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or trainer.ckpt_path is not None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        run = self.run
        if "{seed}" in str(run):
            run = Path(str(run).format(seed=trainer.datamodule.seed))  # type: ignore[attr-defined]
        checkpoint = run if run.suffix == ".ckpt" else run / "best.ckpt"
        if not checkpoint.exists():
            raise RunError(
                f"The weights to start from, {checkpoint}, are not there: train that run first, or "
                f"name another with --trainer.callbacks.{self.option}."
            )
        if checkpoint != run:
            self._require_finished(run)
        try:
            pl_module.get_submodule(self.target).load_state_dict(self._weights(checkpoint))
        except (RuntimeError, AttributeError) as error:
            what = textwrap.shorten(str(error), 300)  # of a large network, the first keys
            raise RunError(
                f"{checkpoint} is of another network than {self.target} here ({what}): "
                f"name a run of the same network with --trainer.callbacks.{self.option}."
            ) from error

    def _weights(self, checkpoint: Path) -> dict[str, torch.Tensor]:
        state = load_state(checkpoint)["state_dict"]
        prefix = f"{self.source}."
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    def _require_finished(self, run: Path) -> None:
        record, last = run / "config.yaml", run / "last.ckpt"
        if not record.exists() or not last.exists():
            return
        asked, state = yaml.safe_load(record.read_text("utf-8"))["trainer"], load_state(last)
        epochs, steps = asked["max_epochs"], asked["max_steps"]
        if (epochs is not None or steps >= 0) and not finished(state, epochs, steps):
            raise RunError(
                f"{run} is not finished, but at {epochs_done(state)} epochs: wait until it is, or "
                f"take the best so far with --trainer.callbacks.{self.option}={run}/best.ckpt."
            )
