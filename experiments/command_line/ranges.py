"""Ranges of options, which the docstring of an option's class states."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pkgutil import resolve_name
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser

from callbacks.errors import RunError
from callbacks.safety.finite_loss import FiniteLoss
from callbacks.safety.preemption import Preemption
from datamodules import LesionData

OURS = ("callbacks.", "datamodules.", "lightning_modules.")
# Options of classes that are not chosen by their import path.
FIXED = {"data": LesionData, "preemption": Preemption, "finite_loss": FiniteLoss}
NUMBER = r"(-?\d+(?:\.\d+)?)"
STATED = re.compile(
    rf"\bin ([\[(]){NUMBER}, {NUMBER}([\])])|\b(at least|greater than|(?<=, )above) {NUMBER}\b"
)


class Range(NamedTuple):
    """The numbers that an option takes.

    Args:
        words: The range as the docstring states it, such as ``in [0, 1)``.
        low: Lower end.
        high: Upper end.
        with_low: Whether the lower end is in the range.
        with_high: Whether the upper end is in the range.
    """

    words: str
    low: float
    high: float = float("inf")
    with_low: bool = True
    with_high: bool = True

    @classmethod
    def stated(cls, description: str) -> Range | None:
        """The range in the first sentence of an option's description; None if it states none.

        Examples:
            >>> Range.stated("Probability of mixing, in [0, 1]; 0.5 in the paper.").words
            'in [0, 1]'
            >>> Range.stated("Temperature, greater than 0.").low
            0.0
        """
        first = re.split(r"\.(?:\s|$)", description, maxsplit=1)[0]
        if not (stated := STATED.search(first)):
            return None
        opened, low, high, closed, kind, bound = stated.groups()
        if kind:
            return cls(stated[0], float(bound), with_low=kind == "at least")
        return cls(stated[0], float(low), float(high), opened == "[", closed == "]")

    def holds(self, number: float) -> bool:
        """Whether a number is in the range; NaN and infinity are in none."""
        if not math.isfinite(number):
            return False
        above = self.low <= number if self.with_low else self.low < number
        return above and (number <= self.high if self.with_high else number < self.high)


def refuse_out_of_range(options: Mapping[str, Any]) -> None:
    """Refuse numbers outside of the range that the docstring of their class states.

    Args:
        options: Options of a command as nested mappings, or a part of them.

    Raises:
        RunError: A number is out of its range. The message names the option and the range.
    """
    for option, described, values in _classes(options, ""):
        for name, stated in ranges(described).items():
            value = values.get(name)
            given: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
            if not all(stated.holds(n) for n in given if type(n) in (int, float)):
                number = "" if stated.words.startswith("at least") else "a number "
                raise RunError(
                    f"--{option}.{name}={value} is out of range: set it to {number}{stated.words}."
                )


@cache
def ranges(described: type) -> Mapping[str, Range]:
    """The range of each option of a class that states one, also of those it passes on."""
    parser = ArgumentParser()
    parser.add_class_arguments(described, "of", fail_untyped=False)
    stated = {a.dest.removeprefix("of."): Range.stated(a.help or "") for a in parser._actions}
    return {name: known for name, known in stated.items() if known}


def _classes(options: Any, at: str) -> Iterator[tuple[str, type, Mapping[str, Any]]]:
    """Each class of this project among the options: where it is, and the values it is given."""
    if isinstance(options, list):
        for item in options:
            yield from _classes(item, at)
    if not isinstance(options, Mapping):
        return
    if at in FIXED:
        yield at, FIXED[at], options
    path, values = str(options.get("class_path", "")), options.get("init_args") or {}
    if path.startswith(OURS):
        yield at, resolve_name(path), values  # also of runs recorded with former paths
    for key, value in (values if path else options).items():
        yield from _classes(value, f"{at}.{key}".strip("."))
