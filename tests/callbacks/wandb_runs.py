"""Small W&B runs that use only the test's folder and the loopback interface."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from callbacks.recording import wandb_service
from callbacks.recording.wandb_logger import ResilientWandbLogger

KEY = "0123456789" * 4
UNAVOIDABLE = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # Lightning 2.6 on torch 2.15
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),  # eight rows need none
]


class Line(LightningModule):
    """Validation loss falls by epoch and F1 peaks in the second of three."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, _):
        loss = self.layer(batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, _):
        self.log("val/loss", 1.0 / (1 + self.current_epoch))
        self.log("val/f1", [0.5, 0.9, 0.7][self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(autouse=True)
def own_wandb(tmp_path, monkeypatch):
    """Run without key and server; keep W&B's files in the test's folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    nobody = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("WANDB_BASE_URL", nobody)
    monkeypatch.setenv("WANDB__STATS_COREWEAVE_METADATA_BASE_URL", nobody)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
    yield
    ResilientWandbLogger.finish()
    wandb_service.shut_down()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_logger(**kwargs) -> ResilientWandbLogger:
    run = {"id": "demo-seed0", "name": "demo-seed0", "group": "demo", "save_dir": "run"}
    return ResilientWandbLogger(**run | {"finish_timeout": 2.0} | kwargs)


def fit(*loggers, epochs: int = 3, callback: Callback | None = None) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=loggers,
        callbacks=callback,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = DataLoader(torch.ones(8, 2), batch_size=2)
    trainer.fit(Line(), data, data)
    return trainer


def offline_run() -> Path:
    (path,) = Path("run/wandb").glob("offline-run-*-demo-seed0/run-demo-seed0.wandb")
    return path


def summary(path: Path) -> dict:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(path)]
    found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return json.loads(found.stdout)


def wandb_core() -> int:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = stat.read_text().split(" (", 1)
        except OSError:  # has ended in between
            continue
        name, fields = rest.rsplit(") ", 1)
        if name == "wandb-core" and fields.split()[1] == str(os.getpid()):
            return int(pid)
    raise AssertionError("wandb-core does not run")
