"""The resolved configuration: beside the checkpoints, on the dashboard, and as a guard."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import SaveConfigCallback

from callbacks.errors import RunError
from callbacks.files import write_text
from callbacks.recording.wandb_logger import ResilientWandbLogger

HELD = ("model.", "data.", "trainer.accumulate_grad_batches", "trainer.limit_train_batches")
# Where the data lie, how they are loaded, and what a checkpoint replaces.
MAY_CHANGE = ("data.root", "data.cache_dir", "data.num_workers", "data.predict_folder",
              ".pretrained", ".weights")  # fmt: skip


class LogConfig(SaveConfigCallback):
    """Writes the resolved config beside the checkpoints and shows it on the dashboard."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # or a test would overwrite what the training was
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.yaml", self.parser.dump(self.config, skip_unset=False))
        for logger in trainer.loggers:
            if isinstance(logger, ResilientWandbLogger):
                config = yaml.safe_load(self.parser.dump(self.config))
                logger.update_config(config | {"commit": commit()})
                for block in (config["model"], config["data"]["split"]):
                    logger.add_tag(block["class_path"].rpartition(".")[2])


def commit() -> str | None:
    """The commit of the code that runs, with ``-dirty`` if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def refuse_changes(record: Path, now: dict[str, Any]) -> None:
    """Holds a run that goes on to the model and the data that it was started with.

    Args:
        record: The run's ``config.yaml``.
        now: The configuration as it is now.

    Raises:
        RunError: A key differs that would make it another run; it is named, with both values.
    """
    try:
        started = yaml.safe_load(record.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        started = None
    if not isinstance(started, dict):
        raise RunError(f"{record} cannot be read: bring it back, or give this run another --name.")
    before, after = (dict(_flat(config)) for config in (started, now))
    for key in sorted(before.keys() | after.keys()):
        if not key.startswith(HELD) or key.endswith(MAY_CHANGE):
            continue
        if before.get(key) != after.get(key):
            flag = key.replace(".init_args", "")
            raise RunError(
                f"{record.parent} was started with {flag} = {before.get(key)!r}, now it is "
                f"{after.get(key)!r}: give this run another --name, or rename "
                "the folder, whose run can be used as before."
            )


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, config
