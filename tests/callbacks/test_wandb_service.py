import os
import signal
import socket
import time
from pathlib import Path

import pytest
import wandb
from pytorch_lightning import Callback
from wandb_runs import (
    KEY,
    UNAVOIDABLE,
    fit,
    make_logger,
    offline_run,
    own_wandb,
    summary,
    wandb_core,
)
from wandb_server import WandbServer

from callbacks.recording import wandb_logger, wandb_service
from callbacks.recording.history import History
from callbacks.recording.metrics_file import read_history

__all__ = ["own_wandb"]
pytestmark = UNAVOIDABLE


def test_a_key_but_no_server_logs_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    logger, start = make_logger(), time.monotonic()
    with pytest.warns(UserWarning, match="logging offline under the same id") as warned:
        logger.log_metrics({"train/loss": 1.0}, step=0)

    assert time.monotonic() - start < 10
    assert len(warned) == 1
    logger.finish()
    assert (logger.mode, summary(offline_run())["run_id"]) == ("offline", "demo-seed0")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_key_that_is_refused_logs_offline(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with WandbServer(refuses=True) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        logger = make_logger(mode="online")
        with pytest.warns(UserWarning, match="logging offline"):
            logger.log_metrics({"train/loss": 1.0}, step=0)
    logger.finish()

    assert summary(offline_run())["summary"]["train/loss"] == 1.0


@pytest.mark.parametrize(("key", "reason"), [("", "no API key"), ("short", "40")])
def test_online_without_a_valid_key_logs_offline(monkeypatch, key, reason):
    monkeypatch.setenv("WANDB_API_KEY", key)
    logger = make_logger(mode="online")
    with pytest.warns(UserWarning, match=f"{reason}.*logging offline"):
        logger.log_metrics({"train/loss": 1.0}, step=0)
    assert (logger.mode, logger.experiment.id) == ("offline", "demo-seed0")


def test_an_id_that_wandb_refuses_costs_the_dashboard_only():
    logger = make_logger(mode="offline", id="demo/seed0")
    offline, nowhere = "logging offline", "metrics.jsonl only"
    with pytest.warns(UserWarning, match=offline), pytest.warns(UserWarning, match=nowhere):
        logger.log_metrics({"val/f1": 1.0, "epoch": 0}, step=0)
    logger.update_config({"lr": 0.1})


def test_a_server_that_never_answers_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(wandb_service, "PROBE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        assert not wandb_service.server_answers(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - start < 2


def test_the_end_does_not_wait_for_a_server_that_died(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        logger = make_logger()
        logger.log_metrics({"train/loss": 1.0}, step=0)
    logger.log_metrics({"train/loss": 0.5}, step=1)
    start = time.monotonic()
    logger.finish()

    assert logger.mode == "online"
    assert time.monotonic() - start < 2 + 3


class Signal(Callback):
    """Hit wandb-core in the middle of the second epoch."""

    def __init__(self, number: signal.Signals):
        self.number = number

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 6:
            os.kill(wandb_core(), self.number)


def test_a_training_outlives_wandb():
    logger = make_logger()
    with pytest.warns(UserWarning, match="W&B is lost.*metrics.jsonl"):
        trainer = fit(History("run"), logger, callback=Signal(signal.SIGKILL))
    logger.log_media({"chart": wandb.Table(columns=["x"], data=[[1]])})  # said once
    logger.log_hyperparams({"lr": 0.1})
    logger.update_config({"lr": 0.1})
    logger.mark_preempting()
    logger.experiment.log({"direct": 1})
    logger.finish()

    assert trainer.global_step == 12
    table = read_history("run/metrics.jsonl")
    assert table.query("kind == 'train'")["step"].tolist() == list(range(12))
    assert table.query("kind == 'val'")["val/f1"].tolist() == pytest.approx([0.5, 0.9, 0.7])
    assert make_logger(mode="offline").experiment.id == "demo-seed0"  # the next run is sound


def test_the_end_does_not_wait_for_a_frozen_wandb(monkeypatch):
    monkeypatch.setattr(wandb_logger, "GRACE_SECONDS", 0.5)
    logger = make_logger(finish_timeout=0.5)
    logger.log_metrics({"train/loss": 1.0}, step=0)
    os.kill(core := wandb_core(), signal.SIGSTOP)
    with pytest.warns(UserWarning, match="could not finish the run"):
        logger.finish()

    assert not Path(f"/proc/{core}").exists()
