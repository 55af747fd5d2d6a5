"""Untrusted files run no code, and run folders contain no keys."""

import os
from pathlib import Path

import pytest
import torch

from callbacks.safety.progress import read_progress
from experiments.command_line.cli import main, run_command
from experiments.running.resume import resume_from
from tests.test_interruptions import PLAIN, fit

RUN = Path("runs/plain/seed0")
SMALL = ["--model.network.name=test_resnet"]


class Runs:
    """An object that creates a file when unpickled."""

    def __reduce__(self):
        return os.mkdir, ("it_ran",)


@pytest.fixture
def trained(lesions):
    assert fit(PLAIN, lesions, "plain", more=SMALL) == 0
    return torch.load(RUN / "best.ckpt")


def test_a_checkpoint_with_code_is_damaged(trained, capsys):
    torch.save(trained | {"global_step": Runs()}, RUN / "last.ckpt")
    path, _ = resume_from(RUN)
    assert path != RUN / "last.ckpt"
    assert f"{RUN}/last.ckpt is damaged" in capsys.readouterr().err
    assert resume_from(RUN, read=read_progress)[0] == path
    assert f"{RUN}/last.ckpt is damaged" in capsys.readouterr().err
    assert not Path("it_ran").exists()


def test_a_checkpoint_chooses_no_classes(lesions, trained):
    """Lightning's command line would build the class named in a checkpoint's hyper-parameters."""
    wanted = {"_class_path": "lightning_modules.Classifier", "network": "torch.nn.Identity"}
    torch.save(trained | {"hyper_parameters": wanted}, "strange.ckpt")
    here = [f"--config={PLAIN}", f"--data.root={lesions}", "--data.size=32", *SMALL]
    split = ["--data.split.test_images=3", "--data.split.val_images=2"]
    use = ["--name=plain", "--ckpt_path=strange.ckpt", "--trainer.accelerator=cpu"]
    cli = run_command(["test", *here, *split, *use])
    assert type(cli.model.network).__name__ == "TimmNetwork"


def test_a_yaml_with_code_is_refused(monkeypatch):
    Path("strange.yaml").write_text("name: !!python/object/apply:os.mkdir [it_ran]\n")
    monkeypatch.setattr("sys.argv", ["experiments", "fit", "--config=strange.yaml"])
    with pytest.raises(SystemExit, match="strange.yaml, line 1 .*not determine a constructor"):
        main()
    assert not Path("it_ran").exists()


def test_no_key_in_what_a_run_writes(lesions, monkeypatch):
    key = "0123456789abcdef" * 3
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, key)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert fit(PLAIN, lesions, "plain", more=SMALL) == 0
    files = [path for path in Path("runs").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert not [path for path in files if key.encode() in path.read_bytes()]
