"""Time limits of commands that are stopped when a budget is spent."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

ROOT = Path(__file__).parents[2]
STOPPED = 75  # as of a run that was asked to stop and saved a checkpoint
GRACE_SECONDS = 45.0  # for the step that is being computed, and its checkpoint


@dataclass(frozen=True)
class Budget:
    """A number of minutes, counted from the start.

    Args:
        minutes: Length of the budget.
    """

    minutes: float
    start: float = field(default_factory=monotonic)

    def left(self, share: float = 1.0) -> float:
        """Seconds until a share of the budget is spent."""
        return self.start + 60 * self.minutes * share - monotonic()


def execute(module: str, arguments: Sequence[str], folder: Path, log: Path, seconds: float) -> int:
    """Carry out ``python -m MODULE`` in a folder, for a limited time.

    All processes of a command that takes longer get SIGTERM, upon which runs save a checkpoint and
    exit, and SIGKILL if they do not end.

    Args:
        module: Module to run.
        arguments: Its arguments.
        folder: Working directory.
        log: File to which the output is appended.
        seconds: Time limit.

    Returns:
        The exit code; 75 if the time was up.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what deterministic algorithms need
    }
    with log.open("a") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(max(seconds, 0))
        except subprocess.TimeoutExpired:
            return STOPPED
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End all processes of a command's session, which may outlive the first one."""
    patience = monotonic() + GRACE_SECONDS
    number = signal.SIGTERM
    while _send(process.pid, number):
        if monotonic() > patience:
            _send(process.pid, signal.SIGKILL)
            break
        number = 0  # asks whether there are any
        process.poll()
        sleep(0.05)
    process.wait()


def _send(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
