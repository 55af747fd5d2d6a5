"""Processes of runs, forked from one that has made all imports, which take several seconds."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path

from callbacks import HOMES

# Imported once, before the first run.
PRELOADED = [
    "experiments.command_line.cli",
    "lightning_modules",
    "wandb.sdk.launch",  # imported by wandb when a run starts
    *sorted({f"callbacks.{home}" for home in HOMES.values()}),
]
SEVERAL = ("--trainer.devices=", "--trainer.num_nodes=", "--trainer.strategy=")
ONE = ("1", "auto")
# To start a process asks for the exit codes of all others, and a code can be read only once.
LOCK = threading.Lock()


def execute(arguments: Sequence[str], log: Path, threads: int | None = None) -> int:
    """Carry out ``python -m experiments`` in a process of its own.

    Args:
        arguments: Command and its options.
        log: File to which the output is appended.
        threads: Number of threads of the process; None leaves it to torch.

    Returns:
        The exit code; negative if a signal killed the process.
    """
    environment = dict(os.environ) | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    if any(a.startswith(SEVERAL) and a.partition("=")[2] not in ONE for a in arguments):
        # Lightning repeats the command line of the first process to start the others.
        command = [sys.executable, "-m", "experiments", *arguments]
        with log.open("a") as file:
            return subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment
            ).returncode
    return forked(_main, list(arguments), log.absolute(), threads, os.getcwd(), environment)


def forked(function: Callable[..., object], *args: object) -> int:
    """Call a function in a process that has all imports; returns the exit code of the process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=function, args=args)
    with LOCK:
        process.start()
    wait([process.sentinel])
    with LOCK:
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def _main(
    arguments: list[str],
    log: Path,
    threads: int | None,
    folder: str,
    environment: Mapping[str, str],
) -> None:
    with log.open("a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["experiments", *arguments]

    import torch

    from experiments.__main__ import main

    if threads:
        torch.set_num_threads(threads)  # torch read the variable when it was imported
    main()
