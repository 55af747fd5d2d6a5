import pytest
import torch
from pytorch_lightning import Callback, LightningModule
from torch import nn
from torch.utils.data import DataLoader

from callbacks.errors import RunError
from callbacks.stages.anneal import Anneal
from tests.trainers import quiet_trainer

STEPS = 4  # per epoch


class Model(LightningModule):
    """Record the criterion's attribute at every step."""

    def __init__(self):
        super().__init__()
        self.layer, self.criterion = nn.Linear(2, 1), nn.Module()
        self.criterion.quantile, self.seen = 0.25, {}

    def training_step(self, batch, _):
        self.seen[self.global_step] = self.criterion.quantile
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Interrupt(Callback):
    """Save in the middle of an epoch, or at its end, and stop."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint("stopped.ckpt")
            raise ValueError("stop")


def fit(*callbacks, ckpt_path=None, **options):
    model = Model()
    trainer = quiet_trainer(*callbacks, **({"max_epochs": 6} | options))
    try:
        trainer.fit(model, DataLoader(torch.ones(STEPS, 2)), ckpt_path=ckpt_path)
    except ValueError as error:
        assert str(error) == "stop"  # noqa: PT017
    return model.seen


def anneal(attribute="criterion.quantile"):
    return Anneal(attribute, start=0.5, end=1.0, begin=1 / 6, until=5 / 6, before=0.9)


@pytest.mark.parametrize(
    ("done", "expected"), [(0, 3), (0.19, 3), (0.2, 1), (0.5, 1.5), (0.8, 2), (1, 2)]
)
def test_value(done, expected):
    change = Anneal("x", start=1, end=2, begin=0.2, until=0.8, before=3)
    assert change.value(done) == pytest.approx(expected)


def test_without_a_warm_up_or_a_ramp():
    assert Anneal("x", start=1, end=2, begin=0.5).value(0.1) == 1
    jump = Anneal("x", start=1, end=2, begin=0.5, until=0.5)
    assert (jump.value(0.49), jump.value(0.5)) == (1, 2)
    with pytest.raises(RunError, match="begin <= until"):
        Anneal("x", start=1, end=2, begin=0.6, until=0.5)


@pytest.mark.parametrize(("epochs", "changed"), [(1, 1), (4, 1), (5, 1), (10, 2)])
def test_a_step_is_taken_in_the_last_epoch_at_the_latest(epochs, changed):
    step = Anneal("criterion.quantile", start=0.0, end=1.0, begin=0.8, until=0.8)
    seen = fit(step, max_epochs=epochs)
    assert list(seen.values()) == [0.0] * STEPS * (epochs - changed) + [1.0] * STEPS * changed


def test_sets_the_attribute_by_epoch():
    seen = fit(anneal())
    by_epoch = [0.9, 0.5, 0.625, 0.75, 0.875, 1.0]
    expected = [value for value in by_epoch for _ in range(STEPS)]
    assert [seen[step] for step in range(6 * STEPS)] == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
@pytest.mark.parametrize("step", [2 * STEPS + 1, 2 * STEPS])
def test_a_run_that_goes_on_finds_its_value(step):
    whole = fit(anneal())
    first = fit(anneal(), Interrupt(step))
    second = fit(anneal(), ckpt_path="stopped.ckpt")
    assert list(first) == list(range(step))
    assert min(second) == step
    assert first | second == whole


def test_a_wrong_path_is_said():
    for path in ("criterion.quantil", "criteria.quantile"):
        with pytest.raises(RunError, match=f"Model has no {path}: correct the attribute"):
            fit(anneal(path))


def test_epochs_must_be_known():
    with pytest.raises(RunError, match="set --trainer.max_epochs"):
        fit(anneal(), max_epochs=-1, max_steps=2)
