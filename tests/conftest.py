import os
import sys
from pathlib import Path

import pytest
import torch

from callbacks.errors import RunError
from callbacks.looker import Looker
from datamodules.synthetic import synthesize

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when the hub's client is imported
if "OMP_NUM_THREADS" not in os.environ:  # one test process per core
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
    torch.set_num_threads(1)


@pytest.fixture
def float64(monkeypatch):
    """Widen halves as ever, and leave what is float64 as it is.

    In float32 two ways to compute a number differ by their order of summation, which is another
    one on every processor; in float64 they agree to nine digits.
    """
    widen = torch.Tensor.float
    monkeypatch.setattr(
        torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else widen(x)
    )


@pytest.fixture(scope="session")
def lesions(tmp_path_factory) -> Path:
    """A small synthetic release, drawn once for each test process."""
    root = tmp_path_factory.mktemp("lesions") / "data"
    synthesize(root, images=400)
    return root


@pytest.fixture(autouse=True)
def _defects_of_lookers(monkeypatch):
    """What a callback that only looks would survive fails a test, if it is no known limit."""
    give_up = Looker.give_up

    def strict(self, error):
        if not isinstance(error, RunError):
            raise error
        give_up(self, error)

    monkeypatch.setattr(Looker, "give_up", strict)


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Every test runs in an empty folder, without W&B and without a network of weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(sys, "argv", ["experiments"])  # the command line wants no second one
