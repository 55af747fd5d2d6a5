"""Failures of lookers: each is reported once, and the run continues."""

from pathlib import Path

import pytest
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.demos.boring_classes import BoringModel

import callbacks
from callbacks.errors import RunError
from callbacks.looker import Looker
from experiments.command_line.cli import run_command

PLAIN = Path(__file__).parents[1] / "plain.yaml"
HOOKS = [
    "on_train_batch_start",
    "on_validation_epoch_end",
    "on_validation_end",
    "on_fit_end",
    "on_test_end",
    "on_predict_batch_end",
]
# They produce what others need, or change or stop a run: if they fail, the run must fail.
ACTING = {"Anneal", "ChooseDecision", "FidelityTable", "FiniteLoss", "Freeze", "LogConfig"}
ACTING |= {
    "ClassMeans",
    "Compile",
    "EMA",
    "Ending",
    "ImbSAM",
    "IsicSubmission",
    "Moved",
    "Predictions",
    "Preemption",
    "Results",
    "SAM",
    "SplitTable",
    "StartFrom",
    "WarmStart",
}


@pytest.fixture
def _defects_of_lookers():
    """Let lookers fail as they do for users."""


def raising(name):
    def hook(self, *_, **__):
        self.calls += 1
        raise ZeroDivisionError("a\nb")

    return type("TwoWords", (Looker,), {name: hook, "calls": 0})()


@pytest.mark.parametrize("name", HOOKS)
def test_a_looker_that_raises_ends_nothing(name, capsys):
    looker = raising(name)

    def run(times):
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        few = {f"limit_{part}_batches": 2 for part in ("train", "val", "test", "predict")}
        trainer = Trainer(max_epochs=times, accelerator="cpu", callbacks=[looker], **quiet, **few)
        model = BoringModel()
        trainer.fit(model)
        assert trainer.current_epoch == times
        trainer.test(model, verbose=False)
        trainer.predict(model)

    run(2)
    said = capsys.readouterr().out
    assert looker.calls == 1
    assert said.count("No two words: ZeroDivisionError in test_looker.py, line ") == 1
    assert ": a. The run continues without it." in said


def test_what_is_refused_at_the_start_still_stops_a_run():
    class Picky(Looker):
        def setup(self, trainer, pl_module, stage):
            raise RunError("Not with this model.")

    trainer = Trainer(max_epochs=1, accelerator="cpu", callbacks=[Picky()], logger=False)
    with pytest.raises(RunError, match="Not with this model"):
        trainer.fit(BoringModel())


def test_every_callback_either_looks_or_acts():
    own = [getattr(callbacks, name) for name in callbacks.HOMES]
    own = [cls for cls in own if issubclass(cls, Callback)]
    assert {cls.__name__ for cls in own if not issubclass(cls, Looker)} == ACTING


def test_a_run_whose_pictures_fail_is_trained_resumed_and_tested(lesions, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("unflatten: Provided sizes [10, 10] don't multiply up")

    monkeypatch.setattr("callbacks.looking.attention_maps.attention_maps", fail)
    fit = ["fit", f"--config={PLAIN}", f"--data.root={lesions}", "--data.size=32"]
    fit += ["--data.split.test_images=3", "--data.split.val_images=2"]
    fit += ["--model.network.name=test_resnet", "--trainer.limit_train_batches=1"]
    fit += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    fit += ["--trainer.callbacks+=callbacks.AttentionMaps"]
    fit += ["--trainer.callbacks.every_n_epochs=1"]
    for epochs in (1, 3):
        cli = run_command([*fit, f"--trainer.max_epochs={epochs}"])
        assert cli.trainer.current_epoch == epochs
        assert capsys.readouterr().out.count("No attention maps: RuntimeError") == 1
    folder = Path("runs/demo/seed0")
    run_command(["test", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/best.ckpt"])
    assert "No attention maps: RuntimeError" in capsys.readouterr().out
    assert (folder / "results.json").exists()
