"""The second stage of a method begins with the weights of the first."""

from __future__ import annotations

from pathlib import Path

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.checkpoint_io import load_state
from callbacks.errors import RunError


class WarmStart(Callback):
    """Loads weights of another run before a training starts; one that goes on has its own.

    Args:
        run: The other run's folder, whose ``best.ckpt`` is taken, or a checkpoint. ``{seed}`` in
            it is the seed of this run.
        source: The submodule there, by its dotted name.
        target: The submodule here that it is loaded into; the same name if not given.
        leave_out: Prefixes, within the submodule, of what keeps its own initial values.
        option: What ``run`` is called on the command line.

    Raises:
        RunError: There is no such checkpoint, or it does not fit.
    """

    def __init__(
        self,
        run: Path,
        source: str = "network",
        target: str | None = None,
        leave_out: list[str] | None = None,
        option: str = "run",
    ) -> None:
        self.run, self.option = run, option
        self.source, self.target = source, target or source
        self.leave_out = tuple(leave_out or ())

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
        weights = self._weights(checkpoint)
        try:
            module = pl_module.get_submodule(self.target)
            left_out = {k: v for k, v in module.state_dict().items() if self._stays(k)}
            module.load_state_dict(left_out | weights)
        except (RuntimeError, AttributeError) as error:
            raise RunError(
                f"{checkpoint} is of another network than {self.target} here: {error}"
            ) from error

    def _weights(self, checkpoint: Path) -> dict[str, torch.Tensor]:
        state = load_state(checkpoint)["state_dict"]
        prefix = f"{self.source}."
        weights = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        return {k: v for k, v in weights.items() if not self._stays(k)}

    def _stays(self, key: str) -> bool:
        return bool(self.leave_out) and key.startswith(self.leave_out)
