"""Base of callbacks whose failures never stop a run."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from callbacks.errors import RunError, reason
from callbacks.run_callback import RunCallback


class Looker(RunCallback):
    """Base of callbacks that only draw, print, measure or upload.

    If a hook raises, one line is printed and the callback is switched off until the command ends.
    Errors raised in ``__init__`` and ``setup`` still stop the command at its start.
    """

    failed = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, hook in list(vars(cls).items()):
            if name.startswith("on_"):
                setattr(cls, name, _surviving(hook))

    def give_up(self, error: Exception) -> None:
        """Switch the callback off and print why, in one line."""
        self.failed = True
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(self).__name__).lower()
        print(f"No {words}: {_explained(error)}. The run continues without it.")


def _surviving(hook: Callable[..., None]) -> Callable[..., None]:
    @wraps(hook)
    def survive(self: Looker, *args: Any, **kwargs: Any) -> None:
        if self.failed:
            return
        try:
            hook(self, *args, **kwargs)
        except Exception as error:  # of any library: none is worth a run
            self.give_up(error)

    return survive


def _explained(error: Exception) -> str:
    if isinstance(error, RunError):
        return reason(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}, line {last.lineno}"
    return f"{type(error).__name__} in {place}: {reason(error)}"
