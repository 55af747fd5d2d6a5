"""Initialization of a second stage from the weights of a first stage."""

from __future__ import annotations

import textwrap
from pathlib import Path

import torch
from pytorch_lightning import LightningModule, Trainer

from callbacks.errors import RunError
from callbacks.run_callback import RunCallback
from callbacks.run_folder import RunFolder
from callbacks.safety.checkpoint_io import load_state
from callbacks.safety.progress import epochs_done, finished


class WarmStart(RunCallback):
    """Load weights of another run before a run is trained; a resumed run keeps its own weights.

    Args:
        run: Folder of the other run, whose ``best.ckpt`` is loaded if that run is finished, or a
            checkpoint. ``{seed}`` in the path stands for the seed of this run.
        source: Dotted name of the submodule in the other run.
        target: Dotted name of the submodule to load into; ``source`` if None.
        option: Name of the option that holds ``run``, for error messages.

    Raises:
        RunError: The checkpoint does not exist or does not fit, or its run is not finished.
    """

    def __init__(
        self,
        run: Path,
        source: str = "network",
        target: str | None = None,
        option: str = "run",
    ) -> None:
        super().__init__()
        self.run = run
        self.option = option
        self.source = source
        self.target = target or source

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or trainer.ckpt_path is not None or self.is_trial(trainer):
            return
        run = self.run
        if "{seed}" in str(run):
            run = Path(str(run).format(seed=self.data(trainer).seed))
        checkpoint = run if run.suffix == ".ckpt" else RunFolder(run).best
        if not checkpoint.exists():
            raise RunError(
                f"There is no checkpoint {checkpoint} to start from: train that run first, or "
                f"name another with --trainer.callbacks.{self.option}."
            )
        if checkpoint != run:
            self._require_finished(run)
        try:
            pl_module.get_submodule(self.target).load_state_dict(self._weights(checkpoint))
        except (RuntimeError, AttributeError) as error:
            cause = textwrap.shorten(str(error), 300)  # the first keys of a large network
            raise RunError(
                f"{checkpoint} does not fit {self.target} ({cause}): name a run of the same "
                f"network with --trainer.callbacks.{self.option}."
            ) from error

    def _weights(self, checkpoint: Path) -> dict[str, torch.Tensor]:
        state = load_state(checkpoint)["state_dict"]
        prefix = f"{self.source}."
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    def _require_finished(self, run: Path) -> None:
        record = RunFolder(run).config
        last = RunFolder(run).last
        if not record.exists() or not last.exists():
            return
        config = RunFolder(run).settings()["trainer"]
        state = load_state(last)
        max_epochs, max_steps = config["max_epochs"], config["max_steps"]
        unlimited = max_epochs is None and max_steps < 0
        if not unlimited and not finished(state, max_epochs, max_steps):
            raise RunError(
                f"{run} is not finished ({epochs_done(state)} epochs so far): wait until it is, "
                "or start from its best checkpoint so far with "
                f"--trainer.callbacks.{self.option}={RunFolder(run).best}."
            )
