"""The resolved configuration: beside the checkpoints, on the dashboard, and as a guard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import SaveConfigCallback

from callbacks.errors import RunError
from callbacks.wandb_logger import ResilientWandbLogger

# Where the data lie and how they are loaded does not change what is learned.
MAY_CHANGE = {"data.root", "data.num_workers", "data.predict_folder"}


class LogConfig(SaveConfigCallback):
    """Writes the resolved config beside the checkpoints and shows it on the dashboard.

    A run that goes on must still be the run that was started: if the model or the data changed
    since, it stops before it trains.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        record = Path(trainer.default_root_dir, self.config_filename)
        if record.exists() and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            now = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
            refuse_changes(record, yaml.safe_load(record.read_text()), now)
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, ResilientWandbLogger):
                logger.update_config(yaml.safe_load(self.parser.dump(self.config)))


def refuse_changes(record: Path, started: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises a RunError that names the first key of ``model`` or ``data`` that differs."""
    before, after = (dict(_flat(config)) for config in (started, now))
    for key in sorted(before.keys() | after.keys()):
        if key.split(".")[0] not in ("model", "data") or key in MAY_CHANGE:
            continue
        if before.get(key) != after.get(key):
            raise RunError(
                f"{record.parent} was started with {key} = {before.get(key)!r}, now it is "
                f"{after.get(key)!r}: give this run another --name, or remove the folder."
            )


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, config
