"""The moving average of the weights: its values, and its use without a warning."""

import warnings

import torch
from pytorch_lightning import Callback

from callbacks.stages.ema import EMA
from experiments import load
from tests.callbacks.test_stages import classifier, fit
from tests.test_command_line import RUN, use
from tests.test_command_line import fit as train

DECAY = 0.5


class Watch(Callback):
    """Keeps the parameters after each step, and those that each epoch is validated with."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, module, *_):
        self.steps.append(self.now(module))

    def on_validation_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 0 and not trainer.sanity_checking:
            self.validated.append(self.now(module))

    def now(self, module):
        return {name: value.detach().clone() for name, value in module.network.named_parameters()}


def averages(steps):
    """The moving average after each step, which begins with the first weights."""
    average = steps[0]
    for weights in steps:
        if weights is not steps[0]:
            average = {k: DECAY * average[k] + (1 - DECAY) * v for k, v in weights.items()}
        yield average


def test_epochs_are_validated_with_the_average_and_trained_without():
    watch, module = Watch(), classifier()
    fit(module, EMA(DECAY), watch)
    expected = list(averages(watch.steps))
    assert len(expected) == 6
    for found, average in zip(watch.validated, expected[2::3], strict=True):
        torch.testing.assert_close(found, average)
    torch.testing.assert_close(watch.now(module), expected[-1])
    assert not torch.allclose(expected[-1]["1.weight"], watch.steps[-1]["1.weight"])


def test_a_run_is_used_with_its_average_and_without_a_warning(lesions):
    train(lesions, "--trainer.callbacks+=callbacks.EMA", f"--trainer.callbacks.decay={DECAY}")
    average = torch.load(RUN / "best.ckpt")["state_dict"]
    loaded = load(RUN).model.state_dict()
    torch.testing.assert_close({k: loaded[k] for k in average}, average, rtol=0, atol=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*WeightAveraging.*")
        tested = use("test").model.state_dict()
    torch.testing.assert_close({k: tested[k] for k in average}, average, rtol=0, atol=0)
