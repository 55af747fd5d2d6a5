"""Two processes (gloo) train one run: one set of files, metrics equal to a single process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from callbacks.recording.metrics_file import read_history
from experiments.command_line.cli import run_command

ROOT = Path(__file__).parents[1]
RUN = Path("runs/demo/seed0")


def execute(*args: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "experiments", *args]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_train_and_score_as_one(lesions):
    execute(
        "fit",
        f"--config={ROOT / 'tests' / 'plain.yaml'}",
        f"--data.root={lesions}",
        "--data.split.test_images=3",
        "--data.split.val_images=3",  # 21 images, an odd number
        "--data.size=32",
        "--data.batch_size=20",  # two batches for one process, one for the other
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--trainer.enable_progress_bar=false",
    )
    score = [f"--config={RUN}/config.yaml", f"--ckpt_path={RUN}/best.ckpt"]
    run_command(["test", *score, "--trainer.strategy=ddp_fork"])
    two = json.loads((RUN / "results.json").read_text())
    predictions = pd.read_csv(RUN / "test_predictions.csv")
    run_command(["test", *score, "--trainer.devices=1", "--trainer.strategy=auto"])
    one = json.loads((RUN / "results.json").read_text())
    assert two["confusion"] == one["confusion"]
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-5)
    alone = pd.read_csv(RUN / "test_predictions.csv")
    pd.testing.assert_frame_equal(predictions, alone, atol=1e-5)

    history = read_history(RUN / "metrics.jsonl")
    supports = history.filter(like="val/support_").dropna().iloc[0]
    assert (supports == 3).all()
