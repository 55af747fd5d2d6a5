"""LongDerm's commands: ``python -m experiments COMMAND [options]``."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from typing import NamedTuple

from experiments.command_line.output import outlive_readers
from experiments.command_line.train import announce


class Command(NamedTuple):
    """A command: its description for the help page, and the function that runs it."""

    sentence: str
    module: str
    function: str = "main"


COMMANDS = {
    "train": Command("train a recipe or resume its run", "command_line.train"),
    "recipes": Command("list the recipes", "recipes.index"),
    "show": Command("print a recipe and explain its options", "command_line.show"),
    "evaluate": Command(
        "evaluate a run on its test split, or on other data", "use.apply", "evaluate"
    ),
    "decide": Command("choose a decision rule on the validation split", "use.apply", "decide"),
    "predict": Command("classify one image or all images of a folder", "use.apply", "predict"),
    "export": Command("export a run to ONNX and torch.export", "use.export"),
    "ensemble": Command("average runs, or orientations of the images", "use.ensemble"),
    "aggregate": Command("weigh a run's experts on unlabeled test images", "use.aggregate"),
    "card": Command("write the model card of an evaluated run", "use.card"),
    "study": Command("train and evaluate all runs of a study", "running.study"),
    "compare": Command("compare runs in a table and an HTML page", "compare.__main__"),
    "results": Command("publish a study's table in docs/results.md", "compare.results"),
    "status": Command("list all runs, their progress and their Slurm jobs", "running.status"),
    "submit": Command("train on a Slurm cluster", "running.slurm"),
    "dashboard": Command("create the project's workspace on W&B", "use.dashboard"),
}
LIGHTNING = ("fit", "validate", "test", "predict")  # take --config FILE and all options


def main() -> None:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
    elif name in LIGHTNING and (name not in COMMANDS or any("--config" in a for a in arguments)):
        announce()
        import_module("experiments.command_line.cli").main()
    elif name in COMMANDS:
        sys.argv = [f"python -m experiments {name}", *arguments]
        _, module, function = COMMANDS[name]
        getattr(import_module(f"experiments.{module}"), function)()
    else:
        near = difflib.get_close_matches(name, [*COMMANDS, *LIGHTNING], n=1)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        sys.exit(f"error: There is no command {name!r}. {meant}List them with --help.")


def overview() -> str:
    """The help page, which lists the commands."""
    lines = [f"  {name:10} {command.sentence}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m experiments COMMAND [options]",
            "",
            *lines,
            "",
            "Each command explains its options with --help. Options with a dot, such as",
            "--trainer.max_epochs=9, belong to the run. fit, validate, test and predict with",
            "--config FILE are Lightning's own commands, with every option.",
        ]
    )


if __name__ == "__main__":
    outlive_readers()
    main()
