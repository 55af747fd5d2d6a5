"""Options out of range: a one-sentence error before anything is written."""

import signal
import time
from pathlib import Path

import pytest
import timm
import torch
from pytorch_lightning import Callback

from callbacks.errors import RunError
from experiments.command_line.cli import main
from tests.processes import execute, start
from tests.test_command_line import RUN, arguments, fit, use

SCHEDULE = "--model.lr_scheduler=torch.optim.lr_scheduler."


class Endless(Callback):
    """A batch whose prediction is interrupted."""

    def on_predict_batch_start(self, *_, **__):
        Path("begun").touch()
        time.sleep(300)


@pytest.fixture
def said(lesions, monkeypatch):
    def of(*flags):
        monkeypatch.setattr("sys.argv", ["experiments", "fit", *arguments(lesions, *flags)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return str(exit_.value.code)

    return of


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--name=a/b", "error: --name 'a/b' is not a valid name: use 1 to 100 letters"),
        ("--name=", "error: --name '' is not a valid name"),
        ("--seed_everything=-1", "from 0 to 4294967295"),
        ("--seed_everything=4294967296", "from 0 to 4294967295"),
        ("--data.size=0", "error: --data.size=0: set it to 1 or more"),
        ("--data.batch_size=0", "error: --data.batch_size=0: set it to 1 or more"),
        ("--data.batch_size=-4", "error: --data.batch_size=-4: set it to 1 or more"),
        ("--data.num_workers=-1", "error: --data.num_workers=-1: set it to 0 or more"),
        ("--trainer.accumulate_grad_batches=0", "set it to 1 or more"),
        ("--trainer.max_epochs=0", "trains nothing"),
        ("--trainer.enable_checkpointing=false", "neither be resumed nor evaluated"),
        ("--trainer.strategy=ddp_spawn", "set --trainer.strategy=ddp."),
        ("--trainer.devices=0", "out of range"),
        ("--trainer.devices=-1", "out of range"),
        ("--trainer.devices=all", "out of range"),
        ("--trainer.limit_train_batches=0", "leaves none of the"),
        ("--trainer.limit_train_batches=0.001", "leaves none of the"),
        ("--trainer.limit_train_batches=-1", "out of range"),
        ("--trainer.limit_train_batches=1.5", "out of range"),
        (f"{SCHEDULE}ReduceLROnPlateau", "set it to a schedule over the steps"),
        (
            "--model.optimizer=torch.optim.LBFGS",
            "LBFGS is for the gradient of all images, not of a batch",
        ),
        ("--model.optimizer.lr=-1", "out of range: Invalid learning rate: -1"),
        ("--trainer.val_check_interval=1000", "out of range"),
        ("--trainer.limit_val_batches=0", "would have no best.ckpt: leave it out"),
        ("--trainer.check_val_every_n_epoch=9", "validates none of 1 epochs"),
        ("--trainer.callbacks=[]", "add callbacks with --trainer.callbacks+=CLASS"),
        ("--trainer.max_time=00:00:00:00", "trains nothing"),
        ("--model.network.options={no_such: 1}", "'no_such'): correct --model.network.options"),
    ],
)
def test_one_sentence_and_nothing_made(said, flag, sentence):
    assert sentence in said(flag)
    assert not list(Path().glob("**/*.ckpt"))


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="here its wish is granted")
def test_an_accelerator_that_is_not_there(said):
    assert "does not have the requested accelerator" in said("--trainer.accelerator=mps")


def test_tasks_that_slurm_does_not_spread(said, monkeypatch):
    job = {"JOB_ID": "1", "NTASKS": "8", "JOB_NAME": "train", "NODELIST": "node1", "PROCID": "0"}
    for name, value in (job | {"NNODES": "1", "LOCALID": "0"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert "set --ntasks-per-node" in said()


def test_weights_of_another_shape(said):
    gray = timm.create_model("test_resnet", in_chans=1).state_dict()
    torch.save(gray, "gray.pth")
    sentence = said("--model.network.weights=gray.pth")
    assert "gray.pth does not fit test_resnet: the shapes of its weights differ" in sentence


@pytest.mark.parametrize("logger", ["false", "true", "pytorch_lightning.loggers.CSVLogger"])
def test_every_run_keeps_its_own_record(lesions, logger):
    fit(lesions, f"--trainer.logger={logger}", "--trainer.limit_train_batches=2")
    assert "val/balanced_accuracy" in (RUN / "metrics.jsonl").read_text()


def test_what_covers_a_part_of_the_images_says_so(lesions, capsys):
    fit(lesions, "--trainer.limit_train_batches=2", "--data.batch_size=8")
    part = "--trainer.limit_{}_batches=1"
    use("test", part.format("test"))
    assert "No results were written: 8 of 21 test images were scored" in capsys.readouterr().out
    assert not (RUN / "results.json").exists()
    photos = f"--data.predict_folder={lesions}/HAM10000_images_part_1"
    use("predict", photos, part.format("predict"))
    assert "8 predictions in" in (said := capsys.readouterr().out)
    assert "192 images were not predicted: leave out --trainer.limit_predict_batches" in said
    rule = ["--trainer.callbacks+=callbacks.ChooseDecision", "--trainer.callbacks.rule=ArgMax"]
    with pytest.raises(RunError, match="8 of 14 validation images were scored"):
        use("validate", *rule, part.format("val"))
    assert not (RUN / "decision.json").exists()


def test_a_trial_leaves_no_run(lesions):
    fit(lesions, "--trainer.fast_dev_run=true")
    assert not RUN.exists()


def test_the_epoch_whose_numbers_are_shown(lesions, capsys):
    every = ["--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=2"]
    fit(lesions, *every, "--trainer.limit_train_batches=2")
    assert "Validation, epoch 2 " in capsys.readouterr().out


def test_a_prediction_obeys_sigterm(lesions, tmp_path):
    fit(lesions, "--trainer.limit_train_batches=2")
    (RUN / "predictions.csv").write_text("of an earlier call")
    recorded = [f"--config={RUN}/config.yaml", f"--ckpt_path={RUN}/best.ckpt"]
    endless = ["--trainer.callbacks+=tests.test_options.Endless"]
    images = f"--data.predict_folder={lesions}/HAM10000_images_part_1"
    log = tmp_path / "log"
    process = start(execute, tmp_path, log, "predict", *recorded, images, *endless)
    while process.is_alive() and not (tmp_path / "begun").exists():
        time.sleep(0.1)
    process.terminate()
    process.join(120)
    assert process.exitcode == 128 + signal.SIGTERM
    assert "SIGTERM: no results were written" in log.read_text()
    assert (RUN / "predictions.csv").read_text() == "of an earlier call"
