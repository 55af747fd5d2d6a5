"""Progress reports: a bar in a terminal, and a line every ten seconds in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as bar

T = TypeVar("T")
INTERVAL = 10.0  # seconds between two lines


def track(work: Iterable[T], title: str, total: int) -> Iterator[T]:
    """Yield the items of ``work`` and print the progress, beginning before the first item.

    Args:
        work: Results of slow work, computed when iterated.
        title: Title of the work.
        total: Number of items.
    """
    console = Console()
    if console.is_terminal:
        yield from bar(work, title, total=total, transient=True, console=console)
        return
    print(f"{title}: {total:,} files", flush=True)
    start = time.monotonic()
    last = start
    for done, item in enumerate(work, 1):
        yield item
        now = time.monotonic()
        if now - last >= INTERVAL:
            last = now
            left = (now - start) / done * (total - done)
            print(f"{title}: {done:,} of {total:,}, {left:,.0f} s left", flush=True)
