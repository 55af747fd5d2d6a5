"""Every recipe, interrupted at any step, resumes to the result of an uninterrupted run."""

import os
import re
import signal
import zlib
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback

from callbacks.recording.metrics_file import read_history
from callbacks.safety.preemption import SIGNALS
from datamodules.classes import CLASSES
from experiments.command_line.cli import ExperimentCLI, run_command
from experiments.recipes import read, recipes
from experiments.running.resume import resume_from
from experiments.use import dashboard
from tests.test_experiments import RECIPES, ROOT, arguments, small_networks

__all__ = ["small_networks"]  # a fixture

PLAIN = ROOT / "tests" / "plain.yaml"
STEPS, EPOCHS = 4, 2  # steps per epoch, epochs per run
WITHOUT_CLASSES = ("lightning_modules.Compression", "lightning_modules.SimSiam")
COLUMNS = ["step", "kind", "epoch", "train/loss", "val/balanced_accuracy"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Write no config.yaml, which takes longer than training here."""
    monkeypatch.setattr("experiments.command_line.cli.LogConfig", None)


class Tell(Callback):
    """Send this process a signal at ``step``."""

    def __init__(self, step, number=signal.SIGTERM, hook="on_train_batch_start"):
        setattr(self, hook, self.tell)
        self.step, self.number = step, number

    def tell(self, trainer, *_, **__):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


def fit(experiment, lesions, name, *callbacks, more=()):
    """Train or resume; return the exit code, 0 if the run is finished."""
    some = [a for a in arguments(experiment, lesions) if "fast_dev_run" not in a]
    small = [
        f"--name={name}",
        f"--trainer.max_epochs={EPOCHS}",
        f"--trainer.limit_train_batches={STEPS}",
        "--trainer.log_every_n_steps=1",
        "--trainer.limit_val_batches=1",
        "--trainer.num_sanity_val_steps=0",
        *more,
    ]
    original = ExperimentCLI.fit

    def told(self, **kwargs):
        self.trainer.callbacks.extend(callbacks)
        original(self, **kwargs)

    ExperimentCLI.fit = told
    try:
        run_command(["fit", *some, *small])
    except SystemExit as exit_:
        return exit_.code
    finally:
        ExperimentCLI.fit = original
    return 0


def assert_same_run(one, other, lost=0):
    """Checkpoints, bit for bit, and all metrics except ``lost`` rows of training."""
    for file in ("last.ckpt", "best.ckpt"):
        states = [torch.load(f"runs/{name}/seed0/{file}")["state_dict"] for name in (one, other)]
        torch.testing.assert_close(*states, rtol=0, atol=0, equal_nan=True)
    histories = [read_history(f"runs/{name}/seed0/metrics.jsonl") for name in (one, other)]
    columns = [c for c in COLUMNS if c in histories[0]]
    whole, found = (h[columns].set_index(["step", "kind"]) for h in histories)
    # An interrupted epoch has no row of resources, which is all that some methods log in training.
    whole = whole[whole.drop(columns="epoch").notna().any(axis="columns")]
    found = found.reindex(whole.index)
    same = ((whole == found) | (whole.isna() & found.isna())).all(axis="columns")
    assert len(histories[1]) <= len(histories[0])
    assert (~same).sum() <= lost
    assert found[~same].isna().all(axis=None)


def prepare(experiment, lesions):
    """Train the runs that the recipe starts from, as named by its callbacks."""
    without_comments = str(read(experiment.stem))
    for first in re.findall(r"runs/(\w+)/seed\{seed\}", without_comments):
        file = recipes().get(first)
        if file and not Path(f"runs/{first}").exists():
            prepare(file, lesions)
            assert fit(file, lesions, first, more=["--trainer.max_epochs=1"]) == 0


def plotted(experiment):
    """Metrics that the dashboard expects of a training run without masks."""
    sections = (
        dashboard.line_charts(CLASSES)[name] for name in ("Overview", "Per class", "System")
    )
    keys = {key for charts in sections for ys in charts.values() for key in ys}
    config = read(experiment.stem)
    if config["model"]["class_path"] in WITHOUT_CLASSES:
        return {key for key in keys if key.endswith("/loss") or key.startswith("resources/")}
    if config["model"]["class_path"] == "lightning_modules.TauNormalization":  # trains nothing
        keys.remove("train/loss")
    if config["data"].get("task") == "melanoma":
        others = {c for c in CLASSES if c not in ("mel", "nv")} | {"many", "medium", "few"}
        return {key for key in keys if not others & set(re.split("[/_]", key))}
    return keys


def kinds():
    """One recipe per set of classes, ignoring splits, mixes, optimizers and stateless parts.

    ``-m kills`` tests every recipe.
    """
    found = {}
    for path in RECIPES:
        config = read(path.stem)
        config["data"].pop("split", None)
        config["model"]["init_args"].pop("mix", None)
        config["model"]["init_args"].pop("optimizer", None)
        if not re.search("SelfPaced|Seesaw", str(config["model"]["init_args"].get("criterion"))):
            config["model"]["init_args"].pop("criterion", None)
        if re.search("KMeans|JPEG|WebP", str(config["model"]["init_args"].get("codec"))):
            config["model"]["init_args"].pop("codec")
        classes = re.findall(r"'([a-z_.]+\.[A-Z]\w+)'", str(config))
        found.setdefault(frozenset(classes), path)
    return list(found.values())


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("experiment", kinds(), ids=lambda path: path.stem)
def test_every_kind_of_experiment_goes_on_exactly(experiment, lesions):
    prepare(experiment, lesions)
    step = zlib.crc32(experiment.stem.encode()) % (STEPS * EPOCHS - 1)
    assert fit(experiment, lesions, "whole") == 0
    assert fit(experiment, lesions, "told", Tell(step)) == 75
    assert resume_from(Path("runs/told/seed0"))[1]["global_step"] == step + 1
    assert fit(experiment, lesions, "told") == 0
    assert_same_run("whole", "told")
    assert plotted(experiment) <= set(read_history("runs/whole/seed0/metrics.jsonl"))


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize(
    ("number", "hook", "step", "saved"),
    [
        (signal.SIGINT, "on_train_batch_start", 1, 2),
        (signal.SIGUSR1, "on_train_batch_start", 0, 1),
        (signal.SIGUSR2, "on_train_batch_start", STEPS - 1, STEPS),  # after its validation
        (signal.SIGTERM, "on_validation_batch_start", STEPS, STEPS),
        (signal.SIGTERM, "on_train_start", 0, 1),
        (signal.SIGTERM, "on_sanity_check_start", 0, 1),
    ],
)
def test_wherever_it_is_told(number, hook, step, saved, lesions):
    sane = ["--trainer.num_sanity_val_steps=1"]
    assert fit(PLAIN, lesions, "told", Tell(step, number, hook), more=sane) == 75
    assert resume_from(Path("runs/told/seed0"))[1]["global_step"] == saved
    assert fit(PLAIN, lesions, "told") == 0
    assert fit(PLAIN, lesions, "whole") == 0
    assert_same_run("whole", "told")


@pytest.mark.usefixtures("small_networks")
def test_a_second_ctrl_c_waits_for_nothing(lesions, capfd):
    twice = Tell(2, signal.SIGINT), Tell(2, signal.SIGINT)
    assert fit(PLAIN, lesions, "told", *twice) not in (0, 75)
    assert "press Ctrl-C again to stop at once" in capfd.readouterr().err
    assert not Path("runs/told/seed0/last.ckpt").exists()


@pytest.mark.usefixtures("small_networks")
def test_told_within_an_accumulation(lesions):
    more = ["--trainer.accumulate_grad_batches=3", "--trainer.limit_train_batches=7"]

    class InTheMiddle(Tell):
        def tell(self, trainer, module, batch, batch_idx):
            if batch_idx == 1:
                os.kill(os.getpid(), self.number)

    assert fit(PLAIN, lesions, "told", InTheMiddle(0), more=more) == 75
    assert resume_from(Path("runs/told/seed0"), accumulated=3)[1]["global_step"] == 1
    assert fit(PLAIN, lesions, "told", more=more) == 0
    assert fit(PLAIN, lesions, "whole", more=more) == 0
    assert_same_run("whole", "told")


@pytest.mark.usefixtures("small_networks")
def test_a_moving_average_and_the_weights_beside_it(lesions):
    more = ["--trainer.callbacks+=callbacks.EMA", "--trainer.callbacks.decay=0.5"]
    assert fit(PLAIN, lesions, "whole", more=more) == 0
    assert fit(PLAIN, lesions, "told", Tell(STEPS + 1), more=more) == 75
    assert fit(PLAIN, lesions, "told", more=more) == 0
    assert_same_run("whole", "told")
    one, other = (torch.load(f"runs/{name}/seed0/last.ckpt") for name in ("whole", "told"))
    for part in ("current_model_state", "averaging_state"):
        torch.testing.assert_close(one[part], other[part], rtol=0, atol=0)
    weight = "network.model.fc.weight"
    assert not torch.equal(one["state_dict"][weight], one["current_model_state"][weight])


@pytest.mark.usefixtures("small_networks")
def test_a_signal_at_the_end_changes_nothing(lesions):
    end = Tell(STEPS * EPOCHS, hook="on_validation_start")
    assert fit(PLAIN, lesions, "told", end) == 0


@pytest.mark.usefixtures("small_networks")
def test_handlers_are_put_back(lesions):
    before = [signal.getsignal(number) for number in SIGNALS]
    fit(PLAIN, lesions, "told", Tell(0))
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.usefixtures("small_networks")
def test_steps_in_between_are_saved(lesions):
    class Dies(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 3:
                raise MemoryError  # any unexpected failure

    more = ["--preemption.every_n_steps=2"]
    with pytest.raises(MemoryError):
        fit(PLAIN, lesions, "told", Dies(), more=more)
    assert resume_from(Path("runs/told/seed0"))[1]["global_step"] == 2
    assert fit(PLAIN, lesions, "told", more=more) == 0
    assert fit(PLAIN, lesions, "whole") == 0
    assert_same_run("whole", "told")
