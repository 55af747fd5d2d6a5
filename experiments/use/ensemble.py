"""Ensembles of runs: ``python -m experiments ensemble runs/a/seed* [--views 8]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import nn

from callbacks.atomic_files import replacing, write_text
from callbacks.errors import RunError
from callbacks.run_folder import RunFolder
from datamodules import LesionData
from experiments.command_line.cli import MEMBERS, ExperimentCLI, run_command
from experiments.command_line.failures import for_users
from experiments.command_line.parser import CommandParser
from experiments.running.place import refuse_name
from experiments.use.apply import ONE_PROCESS
from experiments.use.trained import restore
from lightning_modules import Classifier
from lightning_modules.networks import Ensemble


def evaluate(
    runs: Sequence[Path], name: str, views: int, folder: Path | None, *options: str
) -> None:
    """Evaluate the mean probability of runs on their test split, or predict a folder with it.

    Results are written to ``runs/<name>/seed<n>``, with the seed and the ``config.yaml`` of the
    first run, so that an ensemble can be compared like any run.

    Args:
        runs: Run folders of the members.
        name: Name of the ensemble's run.
        views: Number of orientations of each image, 1 to 8.
        folder: Folder of images to predict; None scores the test split.
        *options: Flags in addition to the recorded ones.

    Raises:
        RunError: The runs differ in split, classes or image size, or the name is taken.
    """
    refuse_name(name)
    members = [restore(run, *options) for run in runs]
    require_same_data(runs, [member.datamodule for member in members])
    target = RunFolder.of(name, members[0].datamodule.seed)
    claim(target, runs[0], "".join(f"{run}\n" for run in runs) + f"views {views}\n")
    score(averaged(members, views), target, folder, *options)


def claim(target: RunFolder, first: Path, contents: str) -> None:
    """Make the folder of a run that is not trained but made from others.

    Args:
        target: The new folder.
        first: Folder of the run whose options and split are copied.
        contents: Description of the runs it is made from, for ``members.txt``.

    Raises:
        RunError: The folder holds a run, or one that is made from others and has results.
    """
    _refuse_taken(target, contents)
    target.path.mkdir(parents=True, exist_ok=True)
    for file in (target.config, target.split_file):
        with replacing(file) as partial:
            partial.write_bytes((first / file.name).read_bytes())
    write_text(target.path / MEMBERS, contents)


def score(model: LightningModule, target: RunFolder, folder: Path | None, *options: str) -> None:
    """Score a model that is made from runs on their test split, or predict a folder with it.

    Args:
        model: Module that is evaluated in place of a checkpoint.
        target: Folder for the results, as made by :func:`claim`.
        folder: Folder of images to predict; None scores the test split.
        *options: Flags in addition to the recorded ones.
    """

    class MadeCLI(ExperimentCLI):
        def _before_use(self, command: str) -> None:
            """Skip loading a checkpoint: the weights are loaded already."""
            if command == "test":
                self.config_init[command]["verbose"] = False

        def test(self, **kwargs: Any) -> None:
            self.trainer.test(**kwargs | {"model": model, "ckpt_path": None})

        def predict(self, **kwargs: Any) -> None:
            self.trainer.predict(**kwargs | {"model": model, "ckpt_path": None})

    command = ["predict", f"--data.predict_folder={folder}"] if folder else ["test"]
    recorded = [f"--config={target.config}", f"--ckpt_path={target.path / MEMBERS}"]
    # Members of several kinds have their images in common, not the outputs of an encoder.
    pixels = "--data.encoded=false"
    run_command([command[0], *recorded, *ONE_PROCESS, pixels, *command[1:], *options], MadeCLI)


def _refuse_taken(target: RunFolder, contents: str) -> None:
    """Refuse a folder that holds a run, or another ensemble with results."""
    members = target.path / MEMBERS
    if not members.exists():
        if target.config.exists():
            raise RunError(f"{target.path} holds a trained run: give the ensemble another --name.")
        return
    kept = members.read_text("utf-8")
    if kept != contents and (target.results_file().exists() or target.new_predictions.exists()):
        raise RunError(
            f"{target.path} holds the results of another ensemble "
            f"({', '.join(kept.splitlines())}): give this one another --name."
        )


def averaged(members: Sequence[ExperimentCLI], views: int) -> Classifier:
    """A classifier whose probability is the mean of those of the members."""
    network = Ensemble([member.model for member in members], views).eval()
    return Classifier(
        network,
        nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD,
        class_names=members[0].datamodule.class_names,
        shots=members[0].datamodule.shots,
    )


def require_same_data(runs: Sequence[Path], data: Sequence[LesionData]) -> None:
    """Require the same split: a test image of one run may be a training image of another."""
    for run, other in zip(runs, data, strict=True):
        for what, same in (
            ("classes", other.class_names == data[0].class_names),
            ("image sizes", other.size == data[0].size),
            ("splits", other.table["split"].equals(data[0].table["split"])),
        ):
            if not same:
                raise RunError(
                    f"{runs[0]} and {run} have different {what}: choose runs with the same {what}."
                )


def main() -> None:
    parser = CommandParser(
        "Average the probabilities of several runs, or of several orientations of an image, and "
        "evaluate them on the test split or predict a folder."
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--views", type=int, default=1, help="flips and turns per image, 1 to 8")
    parser.add_argument(
        "--folder", type=Path | None, help="images to predict (default: test split)"
    )
    parser.add_argument("--name", help="name of the new run (default: NAME-ensemble or NAME-views)")
    options, more = parser.parse()
    kind = "ensemble" if len(options.runs) > 1 else "views"
    chosen = options.name or f"{options.runs[0].absolute().parent.name}-{kind}"
    with for_users():
        evaluate(options.runs, chosen, options.views, options.folder, *more)
