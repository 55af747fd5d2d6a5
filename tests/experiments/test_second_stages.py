"""Second stages start from a finished run of their seed, and are then used like any other run."""

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch

from callbacks.errors import RunError
from callbacks.recording.metrics_file import read_history
from experiments import load
from experiments.command_line.cli import run_command
from experiments.recipes import recipes

OF_ANY_NETWORK = ["lws", "tau_norm", "disalign"]
OF_TRAINED_ENCODERS = ["crt", "ncm"]  # for a probe these are probe_resample and probe_ncm
OPTIONS = (
    "--data.split.test_images=3", "--data.split.val_images=3", "--data.size=32",
    "--data.batch_size=64", "--trainer.log_every_n_steps=1", "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _weights():
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet").state_dict(), "tiny.pth")


def folder(name):
    return Path("runs", name, "seed0")


def fit(lesions, recipe, *more, epochs=1):
    network = "network.encoder" if recipe.startswith("probe") else "network"
    options = (f"--model.{network}.name=test_efficientnet", f"--model.{network}.weights=tiny.pth")
    length = f"--trainer.max_epochs={epochs}"
    return run_command(
        ["fit", f"--config={recipe}", f"--data.root={lesions}", *OPTIONS, *options, length, *more]
    )


def scored(name):
    files = (f"--config={folder(name)}/config.yaml", f"--ckpt_path={folder(name)}/best.ckpt")
    run_command(["test", *files])
    return json.loads((folder(name) / "results.json").read_text())["metrics"]


def weights(name, checkpoint="best.ckpt"):
    return torch.load(folder(name) / checkpoint, weights_only=True)["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "stages"), [("probe", OF_ANY_NETWORK), ("finetune", OF_TRAINED_ENCODERS)]
)
def test_second_stages_of_one_first_stage(lesions, family, stages, capsys):
    with pytest.raises(RunError, match="train that run first"):
        fit(lesions, f"{family}_{stages[0]}")
    fit(lesions, f"{family}_ce")
    first = weights(f"{family}_ce")
    capsys.readouterr()
    for stage in stages:
        fit(lesions, f"{family}_{stage}")
    assert ("tau 0: balanced" in capsys.readouterr().out) == ("tau_norm" in stages)
    shutil.rmtree(folder(f"{family}_ce"))  # is needed no longer
    kept = {k.replace("network.", "network.network.", 1): v for k, v in first.items()}
    for stage in stages:
        second = weights(f"{family}_{stage}")
        assert all(torch.equal(value, second[key]) for key, value in kept.items()), stage
        assert scored(f"{family}_{stage}")["support_df"] == 3
        assert load(folder(f"{family}_{stage}")).model.state_dict().keys() == second.keys()


@pytest.mark.slow
def test_a_second_stage_resumes_to_what_it_would_have_been(lesions):
    fit(lesions, "probe_ce")
    step = (
        "--trainer.callbacks+=pytorch_lightning.callbacks.ModelCheckpoint",
        "--trainer.callbacks.filename=step",
        "--trainer.callbacks.every_n_train_steps=6",  # in the middle of the second epoch
        "--trainer.callbacks.enable_version_counter=false",
        "--trainer.callbacks.save_top_k=1",
    )
    fit(lesions, "probe_disalign", *step, epochs=2)
    whole = weights("probe_disalign", "last.ckpt")
    for file in ("last.ckpt", "previous.ckpt", "best.ckpt"):
        (folder("probe_disalign") / file).unlink(missing_ok=True)
    shutil.rmtree(folder("probe_ce"))  # is not loaded again
    fit(lesions, "probe_disalign", *step, epochs=2)
    resumed = weights("probe_disalign", "last.ckpt")
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    assert read_history(folder("probe_disalign") / "metrics.jsonl")["attempt"].max() == 2


@pytest.mark.parametrize("family", ["vgg", "finetune", "probe"])
def test_second_stages_name_the_baseline_of_their_family(family):
    stages = OF_ANY_NETWORK + (OF_TRAINED_ENCODERS if family != "probe" else [])
    for stage in stages:
        assert f'"runs/{family}_ce/seed{{seed}}"' in recipes()[f"{family}_{stage}"].read_text()
