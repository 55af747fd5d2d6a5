"""Record of the resolved configuration, and the check that a resumed run keeps it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import SaveConfigCallback

from callbacks.atomic_files import write_text
from callbacks.errors import RunError
from callbacks.run_callback import RunCallback
from callbacks.run_folder import SAFE_LOADER, RunFolder

FIXED_KEYS = ("model.", "data.", "trainer.accumulate_grad_batches", "trainer.limit_train_batches")
# Where the data are, how they are loaded, and initial weights, which a checkpoint replaces.
FREE_KEYS = ("data.root", "data.cache_dir", "data.num_workers", "data.on_device",
             "data.predict_folder", "data.encoded", ".pretrained", ".weights")  # fmt: skip


class LogConfig(SaveConfigCallback):
    """Write the resolved configuration to ``config.yaml`` in the run folder and to W&B."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # a test must not overwrite the record of the training
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        # Options were checked when they were parsed; checking them again takes half a second.
        text = self.parser.dump(self.config, skip_unset=False, skip_validation=True)
        write_text(RunFolder(folder).config, text)
        for dashboard in RunCallback.dashboards(trainer):
            config = _stated(yaml.load(text, SAFE_LOADER))
            dashboard.update_config(config | {"commit": commit()})
            for block in (config["model"], config["data"]["split"]):
                dashboard.add_tag(block["class_path"].rpartition(".")[2])


def commit() -> str | None:
    """The commit of the running code, with ``-dirty`` if files differ from it; None if unknown."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        result = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def refuse_changes(record: Path, now: dict[str, Any]) -> None:
    """Refuse to resume a run with another model or other data than it was started with.

    Args:
        record: Path of the run's ``config.yaml``.
        now: Current configuration.

    Raises:
        RunError: An option differs that makes it another run; it is named, with both values.
    """
    try:
        started = yaml.safe_load(record.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        started = None
    if not isinstance(started, dict):
        raise RunError(f"{record} cannot be read: restore it, or give this run another --name.")
    before, after = (dict(_flat(config)) for config in (started, now))
    for key in sorted(before.keys() | after.keys()):
        if not key.startswith(FIXED_KEYS) or key.endswith(FREE_KEYS):
            continue
        if before.get(key) != after.get(key):
            flag = key.replace(".init_args", "")
            raise RunError(
                f"{record.parent} was started with {flag} = {before.get(key)!r}, now it is "
                f"{after.get(key)!r}: give this run another --name, or rename the folder of the "
                "old run, which can still be used."
            )


def _stated(config: Any) -> Any:
    """The options that have a value."""
    if isinstance(config, dict):
        return {key: _stated(value) for key, value in config.items() if value is not None}
    return [_stated(value) for value in config] if isinstance(config, list) else config


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, config
