"""Callbacks that only look, whose failures no training, test or prediction depends on."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback

from callbacks.errors import RunError, reason


class Looker(Callback):
    """Base of callbacks that draw, print, measure or upload what others made.

    If one of its hooks raises, that is printed once and the callback does nothing more until the
    command ends. What ``__init__`` and ``setup`` refuse still stops a command at its start.
    """

    failed = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, hook in list(vars(cls).items()):
            if name.startswith("on_"):
                setattr(cls, name, _surviving(hook))

    def give_up(self, error: Exception) -> None:
        """Prints what went wrong, in one line."""
        self.failed = True
        what = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(self).__name__).lower()
        print(f"No {what}: {_explained(error)}. The run continues without.")


def _surviving(hook: Callable[..., None]) -> Callable[..., None]:
    @wraps(hook)
    def survive(self: Looker, *args: Any, **kwargs: Any) -> None:
        if self.failed:
            return
        try:
            hook(self, *args, **kwargs)
        except Exception as error:  # of whatever library: none is worth a training
            self.give_up(error)

    return survive


def _explained(error: Exception) -> str:
    if isinstance(error, RunError):
        return reason(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}, line {last.lineno}"
    return f"{type(error).__name__} in {where}: {reason(error)}"
