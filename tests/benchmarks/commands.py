"""Time of commands: ``make bench ARGS=commands``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.benchmarks.comparison import draw_run
from tests.benchmarks.timing import processor_time

if TYPE_CHECKING:
    from tests.benchmarks.loading import Data

COMMANDS = ("--help", "recipes", "status", "compare runs/row", "show small_ce")
REPETITIONS = 3
TRAIN = """
import sys, time
from pytorch_lightning import Callback
from experiments.command_line.cli import ExperimentCLI, run_command
imported = time.process_time()

class FirstStep(Callback):
    def on_train_batch_end(self, *_):
        print("\\nfirst step", imported, time.process_time() - imported)

class Timed(ExperimentCLI):
    def fit(self, **kwargs):
        self.trainer.callbacks.append(FirstStep())
        super().fit(**kwargs)

run_command(sys.argv[1:], Timed)
"""


def bench_commands(data: Data) -> list[dict]:
    """Commands that train nothing, and a training up to the end of its first step.

    Processor time of the command and what it starts; the wall time until it prints something.
    """
    with tempfile.TemporaryDirectory() as folder:
        draw_run(Path(folder, "runs", "row", "seed0"), seed=0)
        rows = [of_command(command, Path(folder)) for command in COMMANDS]
        return rows + of_training(data.small, Path(folder))


def of_command(command: str, folder: Path) -> dict:
    line = ["-m", "experiments", *command.split()]
    times = [timed(line, folder) for _ in range(REPETITIONS)]
    seconds = [cpu for cpu, _ in times]
    return {
        "command": command,
        "CPU s": round(median(seconds), 2),
        "spread": f"{min(seconds):.2f} to {max(seconds):.2f}",
        "prints after s": round(median(first for _, first in times), 2),
    }


def timed(line: list[str], folder: Path) -> tuple[float, float]:
    """Seconds of processor time, and of wall time to the first output."""
    before, start = processor_time(), time.perf_counter()
    process = begin(line, folder)
    process.stdout.read(1)
    first = time.perf_counter() - start
    process.communicate()
    return processor_time() - before, first


def begin(line: list[str], folder: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    environment["WANDB_MODE"] = "offline"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, *line], cwd=folder, env=environment, **streams)


def of_training(root: Path, folder: Path) -> list[dict]:
    """Processor time of the imports, and from there to the end of the first step."""
    line = ["-c", TRAIN, "fit", "--config=small_ce", f"--data.root={root}"]
    line += ["--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"]
    line += ["--data.split=datamodules.splits.Stratified"]
    times = []
    for number in range(REPETITIONS + 1):  # the first one makes the cache of pixels
        output, _ = begin([*line, f"--name=run{number}"], folder).communicate()
        stated = re.search(r"first step (\S+) (\S+)", output.decode())
        times.append([float(seconds) for seconds in stated.groups()])
    parts = zip(*times[1:], strict=True)
    names = ("fit --config=small_ce: imports", "from there to its first step")
    return [
        {
            "command": name,
            "CPU s": round(median(seconds), 2),
            "spread": f"{min(seconds):.2f} to {max(seconds):.2f}",
        }
        for name, seconds in zip(names, parts, strict=True)
    ]
