"""Every model, killed at a random moment, resumes to the result of an uninterrupted run.

Takes minutes and is not part of the suite: ``make test ARGS="-m kills -rP"`` prints the table.
"""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from experiments.running.resume import resume_from
from tests.processes import start
from tests.test_experiments import small_networks
from tests.test_interruptions import _quick, assert_same_run, fit, prepare
from tests.test_two_processes import models

__all__ = ["_quick", "small_networks"]  # fixtures

RUN = Path("runs/killed/seed0")
OFTEN = ["--preemption.every_n_steps=1"]


def lines() -> int:
    metrics = RUN / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


@pytest.mark.kills
@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("experiment", models(), ids=lambda path: path.stem)
def test_killed_at_any_moment(experiment, lesions):
    prepare(experiment, lesions)
    assert fit(experiment, lesions, "whole", more=OFTEN) == 0
    chosen = random.Random(experiment.stem)
    process = start(partial(fit, experiment, lesions, "killed", more=OFTEN))
    wanted = chosen.randint(1, 8)
    while lines() < wanted and process.is_alive():
        time.sleep(0.005)
    time.sleep(0.1 * chosen.random())  # perhaps while a checkpoint is written
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    logged, found = lines(), resume_from(RUN)
    step = found[1]["global_step"] if found else 0
    assert fit(experiment, lesions, "killed", more=OFTEN) == 0
    # Lightning logs a step after saving its checkpoint, and may be killed in between.
    assert_same_run("whole", "killed", lost=1)
    print(f"{experiment.stem}: killed with {logged} rows logged, resumed at step {step}, equal")
