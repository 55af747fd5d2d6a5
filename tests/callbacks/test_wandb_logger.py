from pathlib import Path

import numpy as np
import pytest
import wandb
from jsonargparse import ArgumentParser
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import DummyExperiment
from pytorch_lightning.utilities import rank_zero_only
from wandb_runs import KEY, UNAVOIDABLE, fit, make_logger, offline_run, own_wandb, summary
from wandb_server import WandbServer

from callbacks.recording.history import History
from callbacks.recording.wandb_logger import ResilientWandbLogger

__all__ = ["own_wandb"]
pytestmark = UNAVOIDABLE


def test_without_a_key_it_logs_offline(caplog, monkeypatch):
    monkeypatch.delenv("WANDB_DATA_DIR")
    logger = make_logger(tags=["smoke"])
    fit(logger)
    logger.update_config({"model": {"depth": 19}})
    logger.log_media({"val/image": wandb.Image(np.zeros((4, 4), np.uint8))})
    logger.log_media({"val/table": wandb.Table(columns=["x"], data=[[1]])})
    logger.log_metrics({"test/f1": 0.6, "epoch": 3}, step=12)
    logger.finish()

    found = summary(offline_run())
    assert (found["state"], found["tags"]) == ("finished", ["smoke"])
    assert found["config"]["model"] == {"depth": 19}
    assert found["summary"]["val/f1"] == {"max": pytest.approx(0.9)}
    assert found["summary"]["val/loss"] == {"min": pytest.approx(1 / 3)}
    assert found["summary"]["val/image"]["_type"] == "image-file"
    assert found["summary"]["val/table"]["_type"] == "table-file"
    assert found["summary"]["test/f1"] == 0.6
    assert caplog.text.count("run `wandb login` to store one") == 1
    assert Path("run/wandb/artifacts/staging").exists()  # and not in the home directory


def test_what_is_heard_of_wandbs_environment(caplog, monkeypatch):
    for variable in ("PROJECT", "NAME", "RUN_GROUP", "DIR"):
        monkeypatch.setenv(f"WANDB_{variable}", f"my-{variable}")
    logger = make_logger()
    heard = [logger._wandb_init[key] for key in ("project", "name", "group")]
    assert heard == ["my-PROJECT", "my-NAME", "my-RUN_GROUP"]
    assert ResilientWandbLogger(project="given")._wandb_init["project"] == "given"
    with caplog.at_level("INFO"):
        fit(logger)
    assert "WANDB_DIR is ignored: W&B writes to" in caplog.text
    assert offline_run().exists()


def test_a_resumed_run_goes_on_in_the_same_run(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        for start, value in ((0, 2.0), (3, 1.0)):
            loggers = History("run"), make_logger()
            for step in range(start, start + 3):
                for logger in loggers:
                    logger.log_metrics({"train/loss": value, "epoch": step}, step)
                    logger.log_metrics({"val/f1": value, "val/ece": value, "epoch": step}, step)
            assert loggers[1].mode == "online"
            ResilientWandbLogger.finish()

    assert list(server.runs) == ["demo-seed0"]
    (run,) = server.runs.values()
    assert [row["_step"] for row in run.history] == list(range(12))
    assert [row["epoch"] for row in run.history[::2]] == list(range(6))
    assert 6 in run.offsets
    assert (run.summary["val/f1"], run.summary["val/ece"]) == ({"max": 2.0}, {"min": 1.0})


def test_disabled_it_does_nothing():
    logger = make_logger(mode="disabled")
    fit(logger, epochs=1)
    logger.finish()

    assert not list(Path("run").rglob("*.wandb"))


def test_the_environment_decides_where_the_argument_does_not(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = make_logger()
    logger.log_metrics({"train/loss": 1.0}, step=0)
    assert logger.mode == "disabled"


def test_a_sweep_keeps_its_own_id(monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "agent")
    logger = make_logger(mode="offline")
    assert (logger.experiment.id, logger.version) == ("agent", "")  # a bar would show the version


def test_a_second_run_ends_the_first():
    first, second = make_logger(mode="offline"), make_logger(mode="offline", id="demo-seed1")
    ids = [logger.experiment.id for logger in (first, second)]
    second.finish()

    assert ids == ["demo-seed0", "demo-seed1"]
    assert summary(offline_run())["state"] == "finished"


def fail(logger: ResilientWandbLogger) -> None:
    try:
        logger.log_metrics({"train/loss": 1.0}, step=0)
        raise ValueError("data")
    finally:
        ResilientWandbLogger.finish()


def test_the_run_of_an_error_has_failed():
    with pytest.raises(ValueError, match="data"):
        fail(make_logger(mode="offline"))
    assert summary(offline_run())["exit_code"] == 1


def test_other_ranks_have_a_dummy(monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = make_logger()
    logger.log_metrics({"val/f1": 1.0}, step=0)
    logger.update_config({"lr": 0.1})

    assert isinstance(logger.experiment, DummyExperiment)
    assert not Path("run").exists()


def test_it_is_configured_by_name_and_costs_nothing_before_its_use():
    parser = ArgumentParser()
    parser.add_argument("--logger", type=WandbLogger)
    name = "callbacks.ResilientWandbLogger"
    config = parser.parse_args([f"--logger={name}", "--logger.mode=online", "--logger.tags=[a]"])
    logger = parser.instantiate(config).logger

    assert (logger.mode, logger.name) == ("online", "longderm")
    assert not Path("wandb").exists()
    ResilientWandbLogger.finish()
