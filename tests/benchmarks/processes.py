"""Training on several processes of a CPU: ``make bench ARGS=processes``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from callbacks.recording.metrics_file import read_history

if TYPE_CHECKING:
    from tests.benchmarks.loading import Data

PROCESSES, EPOCHS = (1, 2, 4, 8), 4
RECIPES = {
    "small_ce": ("--data.batch_size=64",),
    "spmix": (
        "--data.batch_size=128",
        "--model.network.encoder.name=test_vit",
        "--model.network.encoder.cnn=test_resnet",
        "--model.network.encoder.cnn_stages=2",
        "--model.network.encoder.pretrained=false",
        "--model.network.embedding=64",
        "--model.network.hidden=64",
        "--model.queue_size=256",
    ),
}
COMMON = (
    "--data.size=64",
    "--data.split=datamodules.splits.Stratified",
    "--trainer.accelerator=cpu",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.logger.mode=disabled",
)


def bench_processes(data: Data) -> list[dict]:
    """Steps per second on 1, 2, 4 and 8 processes, with the same images in each step.

    The first epoch, which also starts the processes, is left out; the others' median counts.
    """
    return [row for recipe in RECIPES for row in of_recipe(recipe, data.small)]


def of_recipe(recipe: str, root: Path) -> list[dict]:
    rates = {number: trained(recipe, root, number) for number in PROCESSES}
    return [
        {"recipe": recipe, "processes": number, "steps/s": rate, "ratio": round(rate / rates[1], 2)}
        for number, rate in rates.items()
    ]


def trained(recipe: str, root: Path, processes: int) -> float:
    """Steps per second of a run on so many processes."""
    options = RECIPES[recipe]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments", "fit", f"--config={recipe}"]
        command += [*COMMON, *options, f"--data.root={root}", f"--trainer.max_epochs={EPOCHS}"]
        if processes > 1:
            command += [f"--trainer.devices={processes}", "--trainer.strategy=ddp"]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        history = read_history(Path(folder, "runs", recipe, "seed0", "metrics.jsonl"))
    rates = history["resources/images_per_second"].dropna() / int(options[0].partition("=")[2])
    return round(rates.iloc[1:].median(), 2)
