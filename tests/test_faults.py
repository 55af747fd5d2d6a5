"""Faults during a run: their messages, and that nothing is lost."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback

from callbacks.errors import RunError
from datamodules.layout import IMAGE_FOLDERS, MASK_FOLDER, METADATA
from experiments.command_line.cli import ExperimentCLI, main, run_command
from experiments.command_line.failures import explained
from experiments.running.resume import resume_from
from tests.test_interruptions import PLAIN, assert_same_run, fit

RUN = Path("runs/struck/seed0")
SMALL = ["--model.network.name=test_resnet"]


class At(Callback):
    """Do something once, when training reaches ``step``."""

    def __init__(self, strike, step=5):
        self.strike, self.step = strike, step

    def on_train_batch_start(self, trainer, module, batch, _):
        if trainer.global_step == self.step:
            self.strike(trainer, module)


@pytest.fixture(scope="module")
def whole(lesions, tmp_path_factory):
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr("sys.argv", ["experiments"])
        assert fit(PLAIN, lesions, "whole", more=SMALL) == 0
    return folder / "runs" / "whole"


@pytest.fixture
def said(monkeypatch):
    """Train with ``strike`` at the sixth step; return the output of the command line."""

    def of(lesions, strike=None, more=()):
        command = []
        monkeypatch.setattr("tests.test_interruptions.run_command", command.extend)
        fit(PLAIN, lesions, "struck", more=[*SMALL, *more])
        monkeypatch.setattr("tests.test_interruptions.run_command", run_command)
        original = ExperimentCLI.fit

        def struck(self, **kwargs):
            if strike is not None:
                self.trainer.callbacks.append(At(strike))
            original(self, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(ExperimentCLI, "fit", struck)
            patch.setattr("sys.argv", ["experiments", *command])
            with pytest.raises(SystemExit) as exit_:
                main()
        assert "Traceback" not in str(exit_.value.code)
        return str(exit_.value.code)

    return of


def goes_on(lesions, whole):
    assert fit(PLAIN, lesions, "struck", more=SMALL) == 0
    shutil.copytree(whole, "runs/whole")
    assert_same_run("whole", "struck")


def poison(trainer, module):
    next(module.network.parameters()).data.fill_(torch.nan)


def test_a_loss_that_is_nan(lesions, whole, said):
    sentence = said(lesions, poison)
    assert "The loss is nan at step 5 (epoch 1), for 8 images starting with ISIC_" in sentence
    assert f"{RUN}/nonfinite.pt holds the weights and the batch" in sentence
    kept = torch.load(RUN / "nonfinite.pt", weights_only=True)
    assert kept["step"] == 5
    assert len(kept["index"]) == 8
    assert resume_from(RUN)[1]["global_step"] == 4
    goes_on(lesions, whole)


def test_both_ways_to_continue_after_a_nan_loss_are_accepted(lesions, said):
    sentence = said(lesions, poison, more=["--trainer.precision=bf16-mixed"])
    smaller = [*SMALL, "--model.optimizer.lr=1e-4", "--trainer.max_epochs=2"]
    assert all(option in sentence for option in ("--name", "--model.optimizer.lr"))
    with pytest.raises(RunError, match="was started with model.optimizer.lr.*another --name"):
        fit(PLAIN, lesions, "struck", more=smaller)
    assert fit(PLAIN, lesions, "smaller", more=smaller) == 0
    assert "--trainer.precision=32-true" in sentence
    assert fit(PLAIN, lesions, "struck", more=[*SMALL, "--trainer.precision=32-true"]) == 0


def test_the_loss_that_was_not_finite_is_seen_again(lesions, said):
    """Also if it depends on random numbers of the step."""
    drawn = []

    def make_random(trainer, module):
        def step(batch, batch_idx):
            drawn.append(torch.rand(()))
            return module(batch["image"]).sum() * drawn[-1] * torch.inf

        module.training_step = step

    assert "The loss is " in said(lesions, make_random)
    torch.set_rng_state(torch.load(RUN / "nonfinite.pt")["rng"])
    assert torch.rand(()) == drawn[0]


def out_of_memory(trainer, module):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


def no_main_memory(trainer, module):
    torch.empty(1 << 60)


def worker_killed(trainer, module):
    raise RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed. ")


@pytest.mark.parametrize(
    ("strike", "sentence"),
    [
        (out_of_memory, "error: GPU memory is full: lower data.batch_size"),
        (no_main_memory, "error: Main memory is full: lower data.num_workers"),
        (worker_killed, "error: Main memory is full: lower data.num_workers"),
    ],
)
def test_out_of_memory_says_what_to_lower(lesions, whole, said, strike, sentence):
    assert said(lesions, strike).startswith(sentence)
    goes_on(lesions, whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is full")
def test_a_disk_that_is_full_for_metrics(lesions, whole, said):
    metrics = RUN / "metrics.jsonl"

    def fill(trainer, module):
        metrics.rename(RUN / "aside")
        metrics.symlink_to("/dev/full")

    assert said(lesions, fill).startswith("error: The disk is full: ")
    (RUN / "aside").replace(metrics)
    goes_on(lesions, whole)


def test_data_that_vanish_during_a_run(lesions, whole, said, tmp_path):
    """A running process keeps its memory maps; the next start reports what is missing."""
    data = tmp_path / "data"
    data.symlink_to(lesions)

    def vanish(trainer, module):
        data.unlink()

    assert fit(PLAIN, data, "struck", At(vanish), more=SMALL) == 0
    assert not data.exists()
    shutil.copytree(whole, "runs/whole")
    assert_same_run("whole", "struck")
    assert f"No data in {data}. " in said(data)


def test_a_last_checkpoint_that_is_truncated(lesions, whole, capsys):
    for epochs in (1, 2):
        more = [*SMALL, f"--trainer.max_epochs={epochs}"]
        assert fit(PLAIN, lesions, "struck", more=more) == 0
    last = RUN / "last.ckpt"
    last.write_bytes(last.read_bytes()[:3000])
    (RUN / "best.ckpt").unlink()
    capsys.readouterr()
    path, checkpoint = resume_from(RUN)
    assert path == RUN / "previous.ckpt"
    assert checkpoint["global_step"] == 4
    assert f"{last} is damaged" in capsys.readouterr().err


@pytest.fixture
def own(lesions, tmp_path):
    """A copy of the synthetic release, to damage."""
    return Path(shutil.copytree(lesions, tmp_path / "own", ignore=shutil.ignore_patterns("cache")))


def image_of(data):
    return next((data / IMAGE_FOLDERS[0]).glob("*.jpg"))


def test_a_corrupt_image(own, lesions, said):
    image = image_of(own)
    whole_image = image.read_bytes()
    image.write_bytes(whole_image[:200])
    sentence = said(own)
    assert "1 of 400 image files cannot be read" in sentence
    assert image.name in sentence
    image.write_bytes(whole_image)
    assert fit(PLAIN, own, "struck", more=SMALL) == 0


def test_a_mask_that_is_missing(own, said):
    mask = next((own / MASK_FOLDER).glob("*.png"))
    mask.unlink()
    sentence = said(own, more=["--data.mask=true"])
    assert "1 mask files are missing in" in sentence
    assert mask.stem.removesuffix("_segmentation") in sentence


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.assign(dx=t["dx"].where(t.index != 7, "wart")), "the class 'wart', which is"),
        (lambda t: pd.concat([t, t.iloc[[7]]]), "more than once (1 such rows)"),
    ],
)
def test_metadata_that_are_wrong(own, said, change, sentence):
    table = pd.read_csv(own / METADATA)
    change(table).to_csv(own / METADATA, index=False)
    assert sentence in said(own)
    table.to_csv(own / METADATA, index=False)
    assert fit(PLAIN, own, "struck", more=SMALL) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="here its wish is granted")
@pytest.mark.parametrize("wish", ["--trainer.strategy=fsdp", "--trainer.accelerator=gpu"])
def test_a_wish_for_a_gpu(lesions, said, wish):
    assert "A GPU is required, and this machine has none" in said(lesions, more=[wish])


def test_more_gpus_than_there_are():
    error = MisconfigurationException("You requested gpu: [0, 1]\n But your machine only has: [0]")
    assert "lower trainer.devices" in str(explained(error))


def test_defects_stay_what_they_are():
    assert explained(ValueError("a defect")) is None
