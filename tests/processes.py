"""Processes that start quickly: forks, with all modules imported and all objects built."""

import os
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from experiments.command_line.cli import run_command


def start(function: Callable[..., Any], *args: Any) -> BaseProcess:
    process = torch.multiprocessing.get_context("fork").Process(target=function, args=args)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
        process.start()
    return process


def execute(folder: Path, log: Path, *arguments: str) -> None:
    """Run the command line in ``folder`` as leader of a process group; for :func:`start`."""
    os.setsid()
    os.chdir(folder)
    sys.stdout = sys.stderr = log.open("a", buffering=1)
    for number in (1, 2):
        os.dup2(sys.stdout.fileno(), number)
    run_command(list(arguments))


def in_two(function: Callable[..., Any], *args: Any) -> list[Any]:
    """Results of ``function(rank, *args)`` in each of two processes connected by gloo."""
    folder = Path.cwd()
    ranks = [start(_one, rank, folder, function, args) for rank in range(2)]
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    (folder / "rendezvous").unlink(missing_ok=True)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def _one(rank: int, folder: Path, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    store = {"init_method": f"file://{folder}/rendezvous", "timeout": timedelta(seconds=60)}
    dist.init_process_group("gloo", rank=rank, world_size=2, **store)
    found = function(rank, *args)
    dist.destroy_process_group()
    torch.save(found, folder / f"{rank}.pt")
    os._exit(0)  # without the exit handlers of the parent
