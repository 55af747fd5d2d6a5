"""torchrun restarts all processes if one dies, and they resume."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from experiments.command_line.cli import run_command
from tests.test_resume import RUN, command, environment

TWO = [
    "--trainer.devices=2",
    "--trainer.strategy=ddp",
    "--trainer.log_every_n_steps=1",
    "--data.num_workers=0",
    "--trainer.max_epochs=3",
    "--preemption.every_n_steps=5",
]


def start(folder: Path, lesions: Path) -> subprocess.Popen:
    folder.mkdir()
    elastic = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    arguments = [sys.executable, "-m", *elastic, *command(lesions, *TWO)[1:]]
    # Otherwise torch 2.15 does not form the group again (pytorch#135712).
    store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    store["OMP_NUM_THREADS"] = "1"  # as in the forked processes of the run that is not killed
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            arguments, cwd=folder, env=environment() | store, stdout=log, stderr=log
        )


def rank(number: int, launcher: int) -> int:
    """The process of a rank among the launcher's children."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    wanted = f"RANK={number}".encode()
    return next(
        int(pid)
        for pid in children
        if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")
def test_a_rank_that_is_killed_costs_five_steps(lesions, tmp_path):
    run_command([*command(lesions, *TWO)[3:], "--trainer.strategy=ddp_fork"])
    folder = tmp_path / "killed"
    process = start(folder, lesions)
    while not (folder / RUN / "last.ckpt").exists():
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)
    os.kill(rank(1, process.pid), signal.SIGKILL)
    assert process.wait(300) == 0, (folder / "log").read_text()
    assert "Resuming from" in (folder / "log").read_text()
    states = [torch.load(f / RUN / "last.ckpt")["state_dict"] for f in (tmp_path, folder)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
