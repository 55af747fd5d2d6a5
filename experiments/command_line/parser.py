"""Parser of the commands other than Lightning's, with one-sentence errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from experiments.command_line.mistakes import clarified


class CommandParser(ArgumentParser):
    """Parser of a command. Options with a dot or after ``--`` are passed on to its runs."""

    def __init__(self, description: str, **options: Any) -> None:
        super().__init__(prog=sys.argv[0], description=description, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sys.stderr.write(f"error: {clarified(self, message)}\n")
        sys.exit(2)

    def parse(self) -> tuple[Namespace, list[str]]:
        """Options of the command, and arguments of the runs."""
        arguments, passed = separate(sys.argv[1:])
        return self.parse_args(arguments), passed


def separate(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into those of a command and those that it passes on to runs.

    >>> separate(["--jobs", "2", "--data.root=x", "--trainer.precision", "32", "a"])
    (['--jobs', '2', 'a'], ['--data.root=x', '--trainer.precision', '32'])
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept: list[str] = []
    passed: list[str] = []
    rest = iter(arguments[:end])
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if not (name.startswith("--") and "." in name):
            kept.append(argument)
            continue
        passed += [argument] if equals else [argument, *islice(rest, 1)]
    return kept, [*passed, *arguments[end + 1 :]]
