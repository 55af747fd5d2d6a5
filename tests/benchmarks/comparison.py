"""Time and memory of ``compare``: ``make bench ARGS="compare --runs 500"``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import yaml

from experiments.recipes import BASE, read
from tests.experiments.conftest import SEVEN as CLASSES
from tests.experiments.conftest import invent

if TYPE_CHECKING:
    from tests.benchmarks.loading import Data

SEEDS = 5
IMAGES = 280  # of the test split of Balanced, 40 per class
DATA_SET = 10_015  # images of HAM10000
EPOCHS = 30  # of small_ce
COMPARE = """
import runpy, sys, time
from tests.benchmarks.timing import peak_memory
sys.argv = ["experiments", "compare", "--baseline=row0"]
try:
    runpy.run_module("experiments", run_name="__main__")
finally:
    print(time.process_time(), peak_memory(), file=sys.stderr)
"""


def draw_run(folder: Path, seed: int, skill: float = 1.0, images: int = IMAGES) -> Path:
    """Draw the folder of an evaluated run, of one seed of a recipe with the given skill."""
    folder.mkdir(parents=True)
    table = invent(CLASSES, images, skill, seed)
    table.to_csv(folder / "test_predictions.csv", index=False)
    (folder / "split.csv").write_text(split_table())
    label = table["dx"].map(CLASSES.index)
    decision = table[[f"p_{name}" for name in CLASSES]].to_numpy().argmax(1)
    confusion = np.zeros((len(CLASSES),) * 2, int)
    np.add.at(confusion, (label, decision), 1)
    results = {
        "seed": seed,
        "synthetic": True,
        "split": "597760c5abbe",
        "classes": CLASSES,
        "metrics": {"balanced_accuracy": float(np.trace(confusion) / images)},
        "confusion": confusion.tolist(),
        "parameters": 370_000,
    }
    (folder / "results.json").write_text(json.dumps(results))
    config = yaml.safe_load(BASE.read_text())
    for key, value in read("small_ce").items():
        config[key] = config.get(key, {}) | value if isinstance(value, dict) else value
    config["seed_everything"] = seed
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = (json.dumps(record) for record in history(np.random.default_rng(seed)))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@cache
def split_table() -> str:
    """Content of a ``split.csv``."""
    number = np.arange(DATA_SET)
    columns = {
        "image_id": [f"ISIC_{i:07d}" for i in number],
        "lesion_id": [f"HAM_{i:07d}" for i in number],
        "dx": np.array(CLASSES)[number % len(CLASSES)],
    }
    return pd.DataFrame(columns).assign(split="train").to_csv(index=False)


def history(draw: np.random.Generator) -> list[dict]:
    """Lines of ``metrics.jsonl`` with as many metrics as a run has."""
    names = [f"{metric}_{name}" for metric in ("precision", "recall", "f1") for name in CLASSES]
    records = []
    for epoch in range(EPOCHS):
        head = {"attempt": 1, "step": 100 * epoch + 99, "epoch": epoch}
        records += [
            head | {"train/loss": float(draw.random()), "lr": 0.003},
            head | {"resources/seconds": 30.0, "resources/images_per_second": 250.0},
            head | {f"val/{n}": float(draw.random()) for n in ("balanced_accuracy", *names)},
        ]
    return records


def bench_compare(data: Data) -> list[dict]:
    """Compare drawn runs, five seeds of each row, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(data.runs):
            row, seed = divmod(number, SEEDS)
            draw_run(Path(folder, "runs", f"row{row}", f"seed{seed}"), seed, 0.5 + row / 100)
        process = subprocess.run(
            [sys.executable, "-c", COMPARE],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
        seconds, peak = map(float, process.stderr.split()[-2:])
        page = Path(folder, "compare", "index.html").stat().st_size
        return [
            {
                "runs": data.runs,
                "CPU s": round(seconds, 1),
                "peak MB": round(peak),
                "page MB": round(page / 1e6, 1),
            }
        ]
