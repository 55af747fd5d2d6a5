"""Training and evaluation keep freed memory."""

import os
import platform
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from datamodules import memory

ROOT = Path(__file__).parents[1]
BLOCKS = """
import resource, sys
import numpy as np
from datamodules.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(9):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(how: str) -> int:
    """Memory obtained from the system for nine blocks of 64 MiB, each freed before the next."""
    told = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", BLOCKS, how]
    done = subprocess.run(command, env=told | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_blocks_are_given_out_once():
    assert pages("kept") < pages("returned") / 4


@pytest.fixture
def told(monkeypatch):
    """Record the settings for glibc, which refuses values above ``told.most``."""
    calls = []

    def mallopt(name, value):
        calls.append((name, value))
        return int(value <= told.most or name == memory.M_TRIM_THRESHOLD)

    told = SimpleNamespace(calls=calls, most=memory.MAX_INT)
    libc = SimpleNamespace(CDLL=lambda _: SimpleNamespace(mallopt=mallopt))
    monkeypatch.setattr(memory, "ctypes", libc)
    return told


def test_an_old_glibc_is_told_what_it_takes(told):
    told.most = memory.OLD_MAX_THRESHOLD
    memory.keep_freed_memory()
    mapped = [value for name, value in told.calls if name == memory.M_MMAP_THRESHOLD]
    assert mapped == [memory.MAX_INT, memory.OLD_MAX_THRESHOLD]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("datamodules", ["synthesize", "--images=1"]),
        ("experiments", ["test", "--typo"]),
        ("experiments", ["ensemble", "runs/nothing/seed0"]),
        ("experiments", ["export", "runs/nothing/seed0"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_command_keeps_freed_memory(module, arguments, told, monkeypatch):
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(SystemExit):
        runpy.run_module(module, run_name="__main__")
    kept = {(memory.M_MMAP_THRESHOLD, memory.MAX_INT), (memory.M_TRIM_THRESHOLD, memory.MAX_INT)}
    assert kept <= set(told.calls)
