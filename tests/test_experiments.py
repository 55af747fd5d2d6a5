"""Every experiment is a test case: it trains, validates and tests one batch of drawings."""

import re
from pathlib import Path

import pytest
import timm

from experiments.command_line.cli import run_command
from experiments.recipes import recipes

ROOT = Path(__file__).parents[1]
EXPERIMENTS = list(recipes().values())


@pytest.fixture
def small_networks(monkeypatch):
    """timm's tiny networks in place of every model, and never any published weights."""
    create = timm.create_model
    understood = {"num_classes", "features_only", "out_indices"}

    def tiny(name: str, pretrained: bool = False, **options: object):
        if "vit" in name and "img_size" in options:
            return create("test_vit", pretrained=False, **options)
        options = {key: options[key] for key in understood & options.keys()}
        return create("test_resnet", pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", tiny)


SMALL = {  # options of some experiments, which take long at their own values
    "hidden": "--model.network.hidden=32",
    "queue_size": "--model.queue_size=64",
    "width": "--model.codec.width=32",
}


def arguments(experiment: Path, lesions: Path) -> list[str]:
    text = experiment.read_text()
    return [
        f"--config={experiment}",
        f"--data.root={lesions}",
        "--data.split=Balanced",
        "--data.split.test_images=3",
        "--data.split.val_images=2",
        "--data.size=32",
        "--data.batch_size=8",
        "--data.num_workers=0",
        "--trainer.accelerator=cpu",
        "--trainer.fast_dev_run=true",
        "--trainer.enable_progress_bar=false",
        *(flag for option, flag in SMALL.items() if re.search(rf"\b{option}: ", text)),
    ]


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda path: path.stem)
def test_one_batch(experiment, lesions):
    cli = run_command(["fit", *arguments(experiment, lesions)])
    assert cli.trainer.global_step == 1
    assert cli.config.fit.name == experiment.stem
    cli.trainer.test(cli.model, cli.datamodule, verbose=False)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda path: path.stem)
def test_header_says_how_to_run_it(experiment):
    header = [line for line in experiment.read_text().splitlines() if line.startswith("#")]
    verb = "make demo" if experiment.stem == "demo" else f"make train EXP={experiment.stem}"
    assert any(line.strip("# ") == verb for line in header)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda path: path.stem)
def test_pretrained_weights_exist_by_name(experiment):
    """The networks above are replaced; that timm publishes the real ones is checked here."""
    networks = re.findall(r"\{name: ([\w.]+)(.*)\}", text := experiment.read_text())
    assert networks or "lightning_modules.Compression\n" in text
    for name, options in networks:
        if "pretrained: false" in options:
            assert timm.is_model(name)
        elif cnn := re.search(r"cnn: ([\w.]+)", options):
            assert timm.is_model(name)
            assert cnn[1] in timm.list_pretrained()
        else:
            assert name in timm.list_pretrained()
