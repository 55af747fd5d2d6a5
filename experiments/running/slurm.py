"""Slurm job arrays: ``python -m experiments submit RECIPE [options]``."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from callbacks.atomic_files import write_text
from callbacks.errors import RunError
from callbacks.safety.exit_codes import EXIT_REQUEUE
from experiments.command_line.parser import CommandParser
from experiments.recipes import find, read_settings
from experiments.running.place import refuse_name

# Since Slurm 22.05, srun no longer inherits --cpus-per-task from sbatch.
SCRIPT = """\
#!/bin/bash
{directives}
{setup}
export SRUN_CPUS_PER_TASK={cpus}
srun --kill-on-bad-exit=0 --wait=120 \\
    {command} \\
    --seed_everything "$SLURM_ARRAY_TASK_ID" \\
    {options}
code=$?
if [ $code = {exit_requeue} ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $code
"""
# SIGUSR1 stays pending until the training installs its handler, and is ignored after it ends:
# blocked and ignored signals survive an exec.
HOLD_SIGNAL = """\
import os, signal, sys
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"""


@dataclass(frozen=True)
class Job:
    """A job array of a recipe over its seeds, which requeues itself until each run is finished.

    Args:
        recipe: Name of the recipe.
        name: Name of the runs, ``runs/<name>/seed<n>``. Default: the name of the recipe.
        seeds: Seeds, such as 0,2,5-7. 0-9%2 runs at most two at a time.
        gpus: GPUs per node. 0 trains on CPUs.
        nodes: Nodes per run.
        processes: Processes per node. Default: one per GPU.
        cpus: CPU cores per process.
        time: Time limit of one attempt, in the format of sbatch. A run may take several attempts.
        notice: Seconds before the time limit at which the run saves a checkpoint and exits.
        account: Account to charge.
        partition: Partition to run in.
        sbatch: Further options of sbatch, as one string.
        setup: Shell command to run before training, such as "module load cuda".
        container: Apptainer image to run in. Default: the Python of this environment.
        options: Options passed to every run.
    """

    recipe: str
    name: str | None = None
    seeds: str = "0"
    gpus: int = 1
    nodes: int = 1
    processes: int | None = None
    cpus: int = 4
    time: str = "24:00:00"
    notice: int = 120
    account: str | None = None
    partition: str | None = None
    sbatch: str = ""
    setup: str = ""
    container: str | None = None
    options: tuple[str, ...] = ()

    def submit(self) -> str:
        """Write the job script to the folder of the runs and submit it."""
        waiting = queued()
        for seed in self.each_seed:
            if entry := waiting.get((self.run, str(seed))):
                raise RunError(
                    f"{self.run} seed {seed} is already in the queue: wait for job {entry.job}, or "
                    "cancel it."
                )
            Path("runs", self.run, f"seed{seed}").mkdir(parents=True, exist_ok=True)
        path = Path("runs", self.run, "submit.sh")
        write_text(path, self.script())
        number = slurm("sbatch", "--parsable", str(path)).strip()
        return (
            f"Submitted job {number}: {self.run}, seeds {self.seeds}. `make status` lists progress."
        )

    def script(self) -> str:
        """The job script."""
        for flag, ours in ("--name", "--name"), ("--seed_everything", "--seeds"):
            if any(option.split("=")[0] == flag for option in self.options):
                raise RunError(
                    f"{flag} is an option of a single run: use {ours} of submit instead."
                )
        return SCRIPT.format(
            directives="\n".join(f"#SBATCH {flag}" for flag in self._directives()),
            setup=self.setup,
            cpus=self.cpus,
            command=shlex.join(self._command()),
            options=shlex.join([*self._devices(), *self.options]),
            exit_requeue=EXIT_REQUEUE,
        )

    @property
    def run(self) -> str:
        if self.name is not None:
            refuse_name(self.name)
        return self.name or str(read_settings(self._file)["name"])

    @property
    def each_seed(self) -> list[int]:
        parts, _, _ = self.seeds.partition("%")  # sbatch's limit of how many run at once
        if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", parts):
            raise RunError(f"--seeds={self.seeds!r} is not a list of seeds: use 0,2,5-7 or 0-9%2.")
        ends = [part.split("-") for part in parts.split(",")]
        return [seed for part in ends for seed in range(int(part[0]), int(part[-1]) + 1)]

    @property
    def _file(self) -> Path:
        return find(self.recipe)

    @property
    def _processes(self) -> int:
        return self.processes or max(1, self.gpus)

    def _directives(self) -> Iterator[str]:
        yield f"--job-name={self.run}"
        yield f"--array={self.seeds}"
        yield f"--nodes={self.nodes}"
        yield f"--ntasks-per-node={self._processes}"
        yield f"--cpus-per-task={self.cpus}"
        if self.gpus:
            yield f"--gpus-per-node={self.gpus}"
        yield f"--time={self.time}"
        yield f"--signal=USR1@{self.notice}"
        yield "--requeue"  # also after a node failure or preemption by another job
        yield "--open-mode=append"
        yield f"--output=runs/{self.run}/seed%a/slurm.log"
        yield from (f"--{k}={v}" for k in ("account", "partition") if (v := getattr(self, k)))
        yield from shlex.split(self.sbatch)

    def _command(self) -> list[str]:
        python = [sys.executable]
        if self.container:
            python = [
                "apptainer",
                "exec",
                *(["--nv"] if self.gpus else []),
                self.container,
                "python",
            ]
        run = ["-m", "experiments", "fit", f"--config={self._file}", f"--name={self.run}"]
        return [*python, "-c", HOLD_SIGNAL, *run]

    def _devices(self) -> Iterator[str]:
        yield f"--trainer.accelerator={'gpu' if self.gpus else 'cpu'}"
        yield f"--trainer.devices={self._processes}"
        yield f"--trainer.num_nodes={self.nodes}"
        if self.nodes * self._processes > 1:
            yield "--trainer.strategy=ddp"
            if self.gpus:  # otherwise each process normalizes with the statistics of its share
                yield "--trainer.sync_batchnorm=true"
        yield "--trainer.enable_progress_bar=false"


class Queued(NamedTuple):
    """An element of a job array that is pending or running."""

    job: str
    state: str


def queued() -> dict[tuple[str, str], Queued]:
    """This user's jobs from this folder, by name and seed of the run."""
    form = "%j|%K|%i|%T|%Z"
    lines = slurm("squeue", "--me", "--array", "--noheader", f"--format={form}").splitlines()
    rows = [line.split("|") for line in lines]
    directory = os.getcwd()
    return {(run, seed): Queued(*job) for run, seed, *job, folder in rows if folder == directory}


def slurm(*command: str) -> str:
    """The output of a Slurm command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise RunError(
            f"There is no {command[0]} on this machine: run this on a login node of the cluster."
        ) from None
    if done.returncode:
        raise RunError(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout


def main() -> None:
    parser = CommandParser(
        "Submit a Slurm job array that trains a recipe with several seeds and requeues itself "
        "until each run is finished. Options with a dot, or after --, are passed to the runs."
    )
    parser.add_class_arguments(Job, as_positional=True, skip={"options"})
    parser.add_argument(
        "--script", action="store_true", help="print the job script without submitting it"
    )
    options, more = parser.parse()
    fields = {key: options[key] for key in Job.__dataclass_fields__ if key != "options"}
    job = Job(**fields, options=tuple(more))
    try:
        print(job.script() if options.script else job.submit())
    except RunError as error:
        sys.exit(f"error: {error}")
