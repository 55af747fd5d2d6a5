"""Output whose reader leaves early, or whose encoding lacks a character."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import sys
from experiments.command_line.output import outlive_readers
outlive_readers()
for i in range(50_000):
    print("line", i, "±")
    print("warning", i, file=sys.stderr)
sys.stdout.flush()
open("results", "w").write("all")
"""


def executed(command, environment=None, lines=1):
    """Start a command, read some lines of its output and leave; its exit code."""
    process = subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    for _ in range(lines):
        assert process.stdout.readline()
    process.stdout.close()
    return process.wait()


@pytest.mark.parametrize("environment", [{}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_a_process_outlives_the_readers_of_its_output(environment):
    assert executed(["-c", PROGRAM], environment, lines=3) == 0
    assert Path("results").read_text() == "all"


def test_a_command_into_a_closed_pipe():
    assert executed(["-m", "experiments", "recipes"]) == 0
