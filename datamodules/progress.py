"""Progress of long work: a bar in a terminal, and a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as bar

T = TypeVar("T")
EVERY = 10.0  # seconds between two lines


def track(work: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items of ``work``, while the progress is printed, from its start.

    Args:
        work: Results that take their time.
        what: Name of the work.
        total: Number of its items.
    """
    console = Console()
    if console.is_terminal:
        yield from bar(work, what, total=total, transient=True, console=console)
        return
    print(f"{what}: {total:,} files", flush=True)
    start = last = time.monotonic()
    for done, item in enumerate(work, 1):
        yield item
        now = time.monotonic()
        if now - last >= EVERY:
            last, left = now, (now - start) / done * (total - done)
            print(f"{what}: {done:,} of {total:,}, {left:,.0f} s left", flush=True)
