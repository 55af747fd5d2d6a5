"""Training on several processes of a CPU: ``make bench ARGS=processes``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from callbacks.recording.metrics_file import read_history
from experiments.recipes import find

if TYPE_CHECKING:
    from tests.benchmarks.loading import Data

RECIPES, PROCESSES, EPOCHS = ("small_ce", "spmix"), (1, 2, 4, 8), 4
SMALL = (
    "--data.size=64",
    "--data.batch_size=64",
    "--model.network.pretrained=false",
)
HYBRID = (
    "--data.size=64",
    "--data.batch_size=128",
    "--model.network.encoder.name=test_vit",
    "--model.network.encoder.cnn=test_resnet",
    "--model.network.encoder.cnn_stages=2",
    "--model.network.encoder.pretrained=false",
    "--model.queue_size=256",
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
    options = SMALL if recipe.startswith("small") else HYBRID
    batch = int(options[1].partition("=")[2])
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments", "fit", f"--config={find(recipe)}"]
        command += [*options, f"--data.root={root}", "--data.split=Stratified"]
        command += ["--trainer.accelerator=cpu", f"--trainer.devices={processes}"]
        command += [f"--trainer.max_epochs={EPOCHS}", "--trainer.limit_val_batches=0"]
        command += ["--trainer.enable_progress_bar=false", "--trainer.logger.mode=disabled"]
        if processes > 1:
            command += ["--trainer.strategy=ddp"]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        history = read_history(Path(folder, "runs", recipe, "seed0", "metrics.jsonl"))
    rates = history["resources/images_per_second"].dropna() / batch
    return round(rates.iloc[1:].median(), 2)
