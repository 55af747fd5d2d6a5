"""Parsers of the commands that are not Lightning's: one kind, whose errors are one sentence."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace


class CommandParser(ArgumentParser):
    """Parser of a command; options with a dot, or behind ``--``, belong to the runs it starts."""

    def __init__(self, description: str, **options: Any) -> None:
        super().__init__(prog=sys.argv[0], description=description, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sys.stderr.write(f"error: {message}\n")
        sys.exit(2)

    def parse(self) -> tuple[Namespace, list[str]]:
        """Options of the command, and options of the runs."""
        own, passed = separate(sys.argv[1:])
        return self.parse_args(own), passed


def separate(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments of a command and those that it passes on to runs.

    >>> separate(["--jobs", "2", "--data.root=x", "--trainer.precision", "32", "a"])
    (['--jobs', '2', 'a'], ['--data.root=x', '--trainer.precision', '32'])
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    own: list[str] = []
    passed: list[str] = []
    rest = iter(arguments[:end])
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if not (name.startswith("--") and "." in name):
            own.append(argument)
            continue
        passed += [argument] if equals else [argument, *islice(rest, 1)]
    return own, [*passed, *arguments[end + 1 :]]
