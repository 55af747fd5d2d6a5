"""Checks of options before anything is built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from jsonargparse import Namespace

from callbacks.errors import RunError
from callbacks.run_folder import CONFIG
from experiments.command_line.ranges import refuse_out_of_range
from experiments.running.place import recorded, refuse_name, run_dir

MAX_SEED = 2**32 - 1  # NumPy's limit
MINIMA = {"data.size": 1, "data.batch_size": 1, "data.num_workers": 0}
TRAINING_MINIMA = {"trainer.accumulate_grad_batches": 1}
LIMITS = ("trainer.max_epochs", "trainer.max_steps")
PROBE = "lightning_modules.networks.Probe"


def refuse_values(config: Namespace) -> None:
    """Refuse seeds and numbers that are out of range in any command.

    Raises:
        RunError: An option is out of range. The message gives the range.
    """
    seed = config.seed_everything
    if isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise RunError(f"--seed_everything={seed}: give a whole number from 0 to {MAX_SEED}.")
    _at_least(config, MINIMA)


def refuse_training(config: Namespace) -> None:
    """Refuse options of ``fit`` with which a run could not be trained, resumed or used.

    Raises:
        RunError: An option is out of range, or disables what every run needs.
    """
    refuse_name(config.name)
    _refuse_renamed(config)
    _at_least(config, TRAINING_MINIMA)
    refuse_out_of_range(config.as_dict())
    for key in LIMITS:
        if (limit := config.get(key)) is not None and limit < 1 and limit != -1:
            raise RunError(f"--{key}={limit} trains nothing: set 1 or more, or -1 for no limit.")
    _refuse_no_validation(config.trainer)
    _refuse_unsaved(config.trainer)
    if re.fullmatch("[0:]+", str(config.trainer.max_time)):
        raise RunError(
            f"--trainer.max_time={config.trainer.max_time} trains nothing: write DD:HH:MM:SS, or "
            "leave it out."
        )
    if "spawn" in str(config.trainer.strategy):
        raise RunError(
            f"Processes spawned by {config.trainer.strategy} cannot load this program: set "
            "--trainer.strategy=ddp."
        )


def without_initial_weights(model: Namespace) -> None:
    """Keep a model from loading pretrained weights, which a checkpoint is about to replace.

    A run can therefore be used where these weights are not, unless its network is a probe: its
    checkpoint lacks the frozen encoder.

    Args:
        model: Parsed options of the model, which are changed.
    """
    probes = [
        key.removesuffix("class_path")
        for key, value in model.items()
        if key.endswith("class_path") and value == PROBE
    ]
    for key in list(model.keys()):
        network, _, option = key.rpartition(".")
        if option == "pretrained" and not key.startswith(tuple(probes)):
            model[key] = False
            model[f"{network}.weights"] = None


def _refuse_unsaved(trainer: Namespace) -> None:
    """Refuse a run that would keep no checkpoints, or not where they are looked for."""
    if trainer.enable_checkpointing is False:
        raise RunError(
            "--trainer.enable_checkpointing=false would leave a run that can neither be resumed "
            "nor evaluated: omit it, or try the options with --trainer.fast_dev_run=true."
        )
    kinds = [str(callback.get("class_path")) for callback in trainer.callbacks or ()]
    if not any("ModelCheckpoint" in kind for kind in kinds) and not trainer.fast_dev_run:
        raise RunError(
            "trainer.callbacks without a ModelCheckpoint would leave a run that can neither be "
            "resumed nor evaluated: add callbacks with --trainer.callbacks+=CLASS, which keeps "
            "those of base.yaml."
        )


def _refuse_no_validation(trainer: Namespace) -> None:
    """Refuse a run that would have no best epoch."""
    if trainer.limit_val_batches == 0 and not trainer.fast_dev_run:
        raise RunError(
            "--trainer.limit_val_batches=0 validates nothing, so the run would have no best.ckpt: "
            "leave it out, or set it to 1 or more."
        )
    interval, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    if interval and epochs and 0 < epochs < interval:
        raise RunError(
            f"--trainer.check_val_every_n_epoch={interval} validates none of {epochs} epochs, so "
            f"the run would have no best.ckpt: set it to {epochs} or less."
        )


def _at_least(config: Namespace, minima: Mapping[str, int]) -> None:
    for key, bound in minima.items():
        if (value := config.get(key)) is not None and value < bound:
            raise RunError(f"--{key}={value}: set it to {bound} or more.")


def _refuse_renamed(config: Namespace) -> None:
    """Refuse the config.yaml of a renamed run whose old name is taken by another run."""
    taken = Path(run_dir(config.name, config.seed_everything))
    for file in map(Path, map(str, config.get("config") or ())):
        folder = file.absolute().parent
        if file.name != CONFIG or folder == taken.absolute() or not taken.exists():
            continue
        if recorded(folder) == (config.name, config.seed_everything):
            raise RunError(
                f"{file} still names the run {taken}, which is another run: set --name and "
                "--seed_everything to those of the run to train."
            )
