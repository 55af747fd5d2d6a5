"""Timing in turns, so that a drift of the machine's speed affects all alternatives equally."""

import statistics
import time
from collections.abc import Callable, Mapping


def in_turns(ways: Mapping[str, Callable[[], int]], rounds: int = 5) -> list[dict]:
    """Run each alternative once for warm-up, then ``rounds`` times in turns.

    A way returns how many images it handled. The first way is what the others are compared with:
    ``ratio`` is the median over rounds of its throughput over theirs.
    """
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            images = way()
            if round_:
                rates[name].append(images / (time.perf_counter() - start))
    first = next(iter(rates.values()))
    return [
        {
            "way": name,
            "images/s": round(statistics.median(own)),
            "slowest": round(min(own)),
            "fastest": round(max(own)),
            "ratio": round(statistics.median(a / b for a, b in zip(first, own, strict=True)), 3),
        }
        for name, own in rates.items()
    ]
