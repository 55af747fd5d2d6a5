"""Timing of the benchmarks: ratios, processor time of workers, and what counts as slower."""

import json
import multiprocessing
import sys
import time

import pytest

from tests.benchmarks import timing
from tests.benchmarks.__main__ import BENCHMARKS


def busy(seconds):
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass
    return 1


def test_ratios_are_of_the_first_way():
    rows = timing.in_turns({"slow": lambda: busy(0.04), "fast": lambda: busy(0.01)}, rounds=3)
    assert rows[0]["CPU ratio"] == 1.0
    assert 0.15 < rows[1]["CPU ratio"] < 0.5
    low, high = map(float, rows[1]["spread"].split(" to "))
    assert low <= rows[1]["CPU ratio"] <= high
    assert 40 <= rows[0]["CPU ms"] < 80


@pytest.mark.skipif(sys.platform != "linux", reason="clocks of other processes are Linux's")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_processor_time_includes_that_of_running_and_ended_processes():
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()

    def work():
        busy(0.2)
        ready.set()
        end.wait()

    before = timing.processor_time()
    process = context.Process(target=work)
    process.start()
    ready.wait()
    assert timing.processor_time() - before >= 0.19
    end.set()
    process.join()
    assert timing.processor_time() - before >= 0.19


def test_a_tenth_less_than_the_committed_ratio_is_reported(tmp_path, monkeypatch):
    figures = tmp_path / "figures.json"
    ratios = {"pairs": {"PIL": 10.0, "others": 3.0}}
    figures.write_text(json.dumps({"threads": 1, "CPU ratio": ratios}))
    monkeypatch.setattr(timing, "FIGURES", figures)

    def rows(ratio):
        return {"pairs": [{"way": "PIL", "CPU ratio": ratio, "spread": "8 to 9"}], "new": []}

    assert timing.regressions(rows(9.1), threads=1) == []
    (line,) = timing.regressions(rows(8.9), threads=1)
    assert "8.9 times as fast as PIL (8 to 9), 10.0 in figures.json" in line
    (line,) = timing.regressions(rows(8.9), threads=2)
    assert "set OMP_NUM_THREADS=1" in line
    assert timing.regressions({"memory": [{"what": "after the imports", "MB": 1}]}, 2) == []


def test_committed_figures_are_of_benchmarks_that_exist():
    figures = json.loads(timing.FIGURES.read_text())["CPU ratio"]
    assert figures.keys() <= BENCHMARKS.keys()
    assert all(ratio > 0 for ways in figures.values() for ratio in ways.values())
