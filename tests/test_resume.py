"""A run that is killed and restarted ends like one that was never killed."""

import os
import random
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from callbacks.recording.metrics_file import read_history
from tests.processes import execute, start

ROOT = Path(__file__).parents[1]
RUN = Path("runs/demo/seed0")


def command(lesions: Path, *more: str) -> list[str]:
    """SPMix with all that is random or has state: pairs, views, queue, key network, workers."""
    return [
        sys.executable,
        "-m",
        "experiments",
        "fit",
        f"--config={ROOT / 'experiments' / 'demo.yaml'}",
        f"--data.root={lesions}",
        "--data.split.test_images=3",
        "--data.split.val_images=2",
        "--data.size=32",
        "--data.batch_size=16",
        "--data.num_workers=2",
        "--model.queue_size=100",
        "--trainer.max_epochs=6",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        # Also within epochs, where resuming is hard.
        "--trainer.callbacks+=pytorch_lightning.callbacks.ModelCheckpoint",
        "--trainer.callbacks.filename=step",
        "--trainer.callbacks.every_n_train_steps=5",
        "--trainer.callbacks.enable_version_counter=false",
        *more,
    ]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}


def begin(folder: Path, lesions: Path, *more: str) -> BaseProcess:
    folder.mkdir(exist_ok=True)
    return start(execute, folder, folder / "log", *command(lesions, *more)[3:])


def finish(folder: Path, lesions: Path, *more: str) -> None:
    process = begin(folder, lesions, *more)
    process.join(180)
    assert process.exitcode == 0, (folder / "log").read_text()


def kill_after_lines(
    process: BaseProcess, metrics: Path, lines: int, number: int = signal.SIGKILL
) -> bool:
    """Kill the process and its workers after some lines of metrics; False if it ended before."""
    before = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    while process.is_alive():
        now = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        if now - before >= lines:
            os.killpg(process.pid, number)
            process.join()
            return True
        time.sleep(0.01)
    return False


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / RUN / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
def test_killed_three_times_equals_never_killed(lesions, tmp_path):
    every_step = "--trainer.log_every_n_steps=1"
    finish(tmp_path / "whole", lesions, every_step)
    chosen, kills = random.Random(0), 0
    while kills < 3:
        process = begin(tmp_path / "killed", lesions, every_step)
        lines = chosen.randint(14, 50)  # at least seven steps, after which there is a checkpoint
        killed = kill_after_lines(process, tmp_path / "killed" / RUN / "metrics.jsonl", lines)
        assert killed, (tmp_path / "killed" / "log").read_text()
        kills += 1
    process = begin(tmp_path / "killed", lesions, every_step)
    metrics = tmp_path / "killed" / RUN / "metrics.jsonl"
    assert kill_after_lines(process, metrics, 4, signal.SIGTERM)  # as a cluster does
    assert process.exitcode == 75
    finish(tmp_path / "killed", lesions, every_step)

    log = (tmp_path / "killed" / "log").read_text()
    assert log.count("Resuming from") == 4
    assert "step.ckpt" in log  # at least once from within an epoch

    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)

    histories = [read_history(tmp_path / f / RUN / "metrics.jsonl") for f in ("whole", "killed")]
    columns = ["step", "kind", "epoch", "train/loss", "val/balanced_accuracy"]
    assert histories[0][columns].equals(histories[1][columns])
    assert histories[1]["attempt"].max() == 5
