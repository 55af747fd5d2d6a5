"""Timing in turns, so that a drift of the machine's speed affects all alternatives equally."""

import json
import multiprocessing
import re
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

FIGURES = Path(__file__).with_name("figures.json")
REGRESSION = 0.1


def in_turns(ways: Mapping[str, Callable[[], int]], rounds: int = 5) -> list[dict]:
    """Run each alternative once for warm-up, then ``rounds`` times in turns.

    A way returns how many images it handled. The first way is what the others are compared with:
    ``ratio`` is the median over rounds of its throughput over theirs, and ``CPU ratio``, with its
    ``spread``, that of their processor time over its own. ``CPU ms`` is the processor time for an
    image, with that of the loading processes. Trust it on a machine that has other work.
    """
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, way in ways.items():
            start, before = time.perf_counter(), processor_time()
            images = way()
            if round_:
                costs[name].append((processor_time() - before) / images)
                rates[name].append(images / (time.perf_counter() - start))
    first = next(iter(ways))
    return [
        {
            "way": name,
            "images/s": round(statistics.median(rates[name])),
            "ratio": round(statistics.median(ratios(rates[first], rates[name])), 3),
            "CPU ms": round(1000 * statistics.median(costs[name]), 3),
            "CPU ratio": round(statistics.median(ratios(costs[name], costs[first])), 3),
            "spread": "{:.3g} to {:.3g}".format(*extremes(ratios(costs[name], costs[first]))),
        }
        for name in ways
    ]


def ratios(over: list[float], under: list[float]) -> list[float]:
    return [a / b if b else 1.0 for a, b in zip(over, under, strict=True)]


def extremes(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def processor_time() -> float:
    """Seconds of processor time of this process and of all that it started."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = sum(time_of(child.pid) for child in multiprocessing.active_children())
    return time.process_time() + ended.ru_utime + ended.ru_stime + running


def time_of(process: int | None) -> float:
    """Seconds of processor time of a running process; 0 where Linux's clocks are not known."""
    with suppress(OSError):
        return time.clock_gettime(~process << 3 | 2)  # clock_getcpuclockid(3)
    return 0.0


def peak_memory() -> int:
    """Memory of this process in MB, from the kernel, because getrusage includes the parent."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024


def regressions(results: Mapping[str, list[dict]], threads: int) -> list[str]:
    """Ratios more than a tenth below the committed ones, as sentences.

    Args:
        results: Rows of each benchmark.
        threads: Threads that torch used. The committed ratios apply to one number only.
    """
    figures = json.loads(FIGURES.read_text())
    rows = {
        (name, row["way"]): row
        for name, rows in results.items()
        for row in rows
        if row.get("way") in figures["CPU ratio"].get(name, {})
    }
    if rows and threads != figures["threads"]:
        return [f"not compared with {FIGURES.name}: set OMP_NUM_THREADS={figures['threads']}."]
    return [
        f"{name}: {row['CPU ratio']} times as fast as {way} ({row['spread']}), {before} in "
        f"{FIGURES.name}: slower by more than a tenth."
        for (name, way), row in rows.items()
        if row["CPU ratio"] < (1 - REGRESSION) * (before := figures["CPU ratio"][name][way])
    ]
