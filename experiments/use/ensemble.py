"""Runs that decide together: ``python -m experiments ensemble runs/a/seed* [--views 8]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from callbacks.atomic_files import replacing, write_text
from callbacks.errors import RunError
from experiments.command_line.cli import MEMBERS, ExperimentCLI, run_command
from experiments.command_line.failures import for_users
from experiments.command_line.parser import CommandParser
from experiments.running.place import refuse_name
from experiments.use.apply import ONE_PROCESS
from experiments.use.trained import restore
from lightning_modules import Classifier
from lightning_modules.networks import Ensemble


def carry_out(
    runs: Sequence[Path], name: str, views: int, folder: Path | None, *options: str
) -> None:
    """Scores the mean probability of runs on their test part, or predicts a folder with it.

    What it finds lies in ``runs/<name>/seed<n>``, with the seed of the first run and its
    ``config.yaml``, so that it can be compared as any run.

    Raises:
        RunError: The runs have different splits, classes or image sizes, or the name is taken.
    """
    refuse_name(name)
    members = [restore(run, *options) for run in runs]
    alike(runs, [member.datamodule for member in members])
    first = runs[0]
    seed = members[0].datamodule.seed

    class Together(ExperimentCLI):
        def _before_use(self, command: str) -> None:
            """The members have their weights already."""
            if command == "test":
                self.config_init[command]["verbose"] = False

        def test(self, **kwargs: Any) -> None:
            self.trainer.test(**kwargs | {"model": joined(members, views), "ckpt_path": None})

        def predict(self, **kwargs: Any) -> None:
            self.trainer.predict(**kwargs | {"model": joined(members, views), "ckpt_path": None})

    target = Path("runs", name, f"seed{seed}")
    if (target / "best.ckpt").exists():
        raise RunError(f"{target} is a trained run: give the ensemble another --name.")
    target.mkdir(parents=True, exist_ok=True)
    for file in ("config.yaml", "split.csv"):
        with replacing(target / file) as partial:
            partial.write_bytes((first / file).read_bytes())
    write_text(target / MEMBERS, "".join(f"{run}\n" for run in runs) + f"views {views}\n")
    command = ["predict", f"--data.predict_folder={folder}"] if folder else ["test"]
    recorded = [f"--config={target}/config.yaml", f"--ckpt_path={target}/{MEMBERS}"]
    run_command([command[0], *recorded, *ONE_PROCESS, *command[1:], *options], Together)


def joined(members: Sequence[ExperimentCLI], views: int) -> Classifier:
    """A classifier that gives the members' mean."""
    network = Ensemble([member.model for member in members], views).eval()
    return Classifier(
        network,
        nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD,
        class_names=members[0].datamodule.class_names,
    )


def alike(runs: Sequence[Path], data: Sequence[Any]) -> None:
    """Holds all runs to the first one's split, for what tests one of them may train another."""
    for run, other in zip(runs, data, strict=True):
        for what, same in (
            ("classes", other.class_names == data[0].class_names),
            ("image sizes", other.size == data[0].size),
            ("splits", other.table["split"].equals(data[0].table["split"])),
        ):
            if not same:
                raise RunError(
                    f"{runs[0]} and {run} have different {what}: they cannot decide together."
                )


def main() -> None:
    parser = CommandParser(
        "Average the probabilities of several runs, or of several orientations of an image, and "
        "score them on the test split or predict a folder."
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
        carry_out(options.runs, chosen, options.views, options.folder, *more)
