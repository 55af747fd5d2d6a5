import os
import sys
from pathlib import Path

import pytest
import torch

from callbacks.errors import RunError
from callbacks.looker import Looker
from datamodules.synthetic import synthesize

os.environ["HF_HUB_OFFLINE"] = "1"  # the hub's client reads it once, on import
if "OMP_NUM_THREADS" not in os.environ:  # one test process per core
    os.environ["OMP_NUM_THREADS"] = "1"  # also for subprocesses
    torch.set_num_threads(1)
# Threads of OpenMP do not survive a fork, so that a forked process would wait for them forever.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def pytest_addoption(parser):
    parser.addoption(
        "--device", choices=("cuda", "cpu"), default="cuda", help="device of tests marked gpu"
    )


@pytest.fixture
def float64(monkeypatch):
    """Let ``Tensor.float`` keep float64 tensors; half precision becomes float32 as usual.

    In float32, results depend on the order of summation, which differs between processors; in
    float64 they agree to nine digits.
    """
    widen = torch.Tensor.float
    monkeypatch.setattr(
        torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else widen(x)
    )


@pytest.fixture(scope="session")
def lesions(tmp_path_factory) -> Path:
    """A small synthetic release, drawn once per test process."""
    root = tmp_path_factory.mktemp("lesions") / "data"
    synthesize(root, images=400)
    return root


@pytest.fixture(autouse=True)
def _defects_of_lookers(monkeypatch):
    """Let failures of a looker fail the test, unless they are known limits."""
    give_up = Looker.give_up

    def strict(self, error):
        if not isinstance(error, RunError):
            raise error
        give_up(self, error)

    monkeypatch.setattr(Looker, "give_up", strict)


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Run every test in an empty folder, without W&B and without the arguments of pytest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(sys, "argv", ["experiments"])
