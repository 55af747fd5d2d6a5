"""LongDerm's commands, and trained runs for use from Python.

>>> from experiments import RunFolder, load  # doctest: +SKIP
>>> run = load("runs/vgg_ce/seed0")  # doctest: +SKIP
>>> run.probabilities(["photo.jpg"])  # doctest: +SKIP

No locale can stop a command by its output: characters that it lacks are printed as escapes.
"""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callbacks.run_folder import RunFolder
    from experiments.use.trained import Run, load

__all__ = ["Run", "RunFolder", "load"]

# The module of each name, imported when the name is first used: importing torch takes seconds.
HOMES = {
    "Run": "experiments.use.trained",
    "RunFolder": "callbacks.run_folder",
    "load": "experiments.use.trained",
}

if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
