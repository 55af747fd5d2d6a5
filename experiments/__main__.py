"""LongDerm's commands: ``python -m experiments COMMAND [options]``."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from typing import NamedTuple


class Command(NamedTuple):
    """A command: what it does, and the function that carries it out."""

    sentence: str
    module: str
    function: str = "main"


COMMANDS = {
    "train": Command("train a recipe, or resume its run", "command_line.train"),
    "recipes": Command("list the recipes", "recipes.index"),
    "show": Command("print a recipe with every option explained", "command_line.show"),
    "evaluate": Command("score a run on the test split", "use.apply", "evaluate"),
    "decide": Command("choose a decision rule on the validation split", "use.apply", "decide"),
    "predict": Command("classify the images of a folder", "use.apply", "predict"),
    "export": Command("write a run as ONNX and torch.export files", "use.export"),
    "ensemble": Command("average the probabilities of several runs", "use.ensemble"),
    "card": Command("write the model card of an evaluated run", "use.card"),
    "study": Command("train and evaluate all runs of a comparison", "running.study"),
    "compare": Command("compare runs in a table and on a page", "compare.__main__"),
    "results": Command("publish a study's table in docs/results.md", "compare.results"),
    "status": Command("list runs, how far they are, and who is training them", "running.status"),
    "submit": Command("train on a Slurm cluster", "running.slurm"),
    "dashboard": Command("create the project's workspace on W&B", "use.dashboard"),
}
LIGHTNING = ("fit", "validate", "test", "predict")  # with --config FILE and every option


def main() -> None:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
    elif name in LIGHTNING and (name not in COMMANDS or any("--config" in a for a in arguments)):
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
    """The help page: every command with its sentence."""
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
    main()
