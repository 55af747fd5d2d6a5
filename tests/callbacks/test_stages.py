"""Warm starts and freezing, the parts of methods with two stages."""

import shutil
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader

from callbacks.errors import RunError
from callbacks.stages.freeze import Freeze
from callbacks.stages.warm_start import WarmStart
from lightning_modules import Classifier
from tests.test_command_line import RUN
from tests.test_command_line import fit as train
from tests.trainers import quiet_trainer

NAMES = ("mel", "nv", "bcc")


class Seed:
    seed = 3


def network() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten()),
        nn.Linear(16, 3),
    )


def classifier():
    optimizer = partial(torch.optim.SGD, lr=0.1)
    return Classifier(network(), nn.CrossEntropyLoss(), optimizer, class_names=NAMES)


def fit(module, *callbacks, ckpt_path=None, **options):
    batch = {
        "image": torch.randn(8, 3, 2, 2) + 5,
        "label": torch.arange(8) % 3,
        "index": torch.arange(8),
    }
    loader = DataLoader([batch] * 3, batch_size=None)
    trainer = quiet_trainer(*callbacks, **({"max_epochs": 2} | options))
    trainer.fit(module, loader, loader, ckpt_path=ckpt_path)
    return trainer


def state(module):
    return {name: value.clone() for name, value in module.network.state_dict().items()}


def changed(before, module):
    after = module.network.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_frozen_modules_stay_bit_for_bit(tmp_path):
    module = classifier()
    before = state(module)
    fit(module, Freeze(["network.0"]))
    assert changed(before, module) == {"1.weight", "1.bias"}


def test_shifted_batch_norm_moves_its_statistics_only(tmp_path):
    module = classifier()
    before = state(module)
    fit(module, Freeze(["network.0"], shift_batch_norm=True))
    statistics = {"0.1.running_mean", "0.1.running_var", "0.1.num_batches_tracked"}
    assert changed(before, module) == statistics | {"1.weight", "1.bias"}


def test_a_part_of_what_is_frozen_can_be_trained(tmp_path):
    module = classifier()
    before = state(module)
    fit(module, Freeze(["network"], but=["network.1"]))
    assert changed(before, module) == {"1.weight", "1.bias"}


@pytest.fixture
def stage1(tmp_path):
    module = classifier()
    fit(module).save_checkpoint(tmp_path / "one" / "best.ckpt")
    return module


def test_warm_start_takes_the_weights_of_the_other_run(stage1, tmp_path):
    module = classifier()
    fit(module, WarmStart(tmp_path / "one"), Freeze(["network"], but=["network.1"]))
    assert changed(state(stage1), module) == {"1.weight", "1.bias"}


def test_warm_start_can_take_a_part_to_another_place(stage1, tmp_path):
    module = classifier()
    module.add_module("other", network()[0])
    start = WarmStart(tmp_path / "one" / "best.ckpt", "network.0", "other")
    start.setup(SimpleNamespace(ckpt_path=None, fast_dev_run=False), module, "fit")
    assert torch.equal(module.other[0].weight, stage1.network[0][0].weight)
    assert not torch.equal(module.network[0][0].weight, stage1.network[0][0].weight)


@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        ({"max_epochs": 3, "max_steps": -1}, True),
        ({"max_epochs": 2, "max_steps": -1}, False),
        ({"max_epochs": None, "max_steps": 7}, True),
        ({"max_epochs": 3, "max_steps": 6}, False),
        ({"max_epochs": None, "max_steps": -1}, False),
    ],
)
def test_a_run_that_is_not_finished_is_not_started_from(stage1, tmp_path, limits, refused):
    folder = tmp_path / "one"
    shutil.copy(folder / "best.ckpt", folder / "last.ckpt")  # of two epochs of three steps
    (folder / "config.yaml").write_text(yaml.safe_dump({"trainer": limits}))
    run = SimpleNamespace(ckpt_path=None, fast_dev_run=False)
    with (
        pytest.raises(RunError, match="is not finished .2 epochs so far")
        if refused
        else nullcontext()
    ):
        WarmStart(folder).setup(run, classifier(), "fit")
    WarmStart(folder / "best.ckpt").setup(run, classifier(), "fit")  # when asked for by name


def test_a_run_that_goes_on_has_its_own_weights(stage1, tmp_path):
    own = classifier()
    frozen, start = Freeze(["network"], ["network.1"]), WarmStart(tmp_path / "one")
    fit(own, frozen, max_epochs=1).save_checkpoint(tmp_path / "own.ckpt")
    again = classifier()
    fit(again, start, frozen, ckpt_path=tmp_path / "own.ckpt")
    assert changed(state(own), again) == {"1.weight", "1.bias"}


def test_a_resumed_run_does_not_need_the_other_run(lesions):
    train(lesions)
    RUN.rename("first")
    start = ("--trainer.callbacks+=callbacks.WarmStart", "--trainer.callbacks.run=first")
    train(lesions, *start)
    shutil.rmtree("first")
    resumed = train(lesions, *start, "--trainer.max_epochs=2")
    assert resumed.trainer.current_epoch == 2


def test_what_is_frozen_stays_so_when_going_on_within_an_epoch(tmp_path):
    module = classifier()
    fit(module, Freeze(["network.0"]), max_steps=1).save_checkpoint(tmp_path / "mid.ckpt")
    before, again = state(module), classifier()
    fit(again, Freeze(["network.0"]), ckpt_path=tmp_path / "mid.ckpt")
    assert changed(before, again) == {"1.weight", "1.bias"}


def test_a_seed_in_the_name_of_the_other_run_is_that_of_this_one(stage1, tmp_path):
    (tmp_path / "one").rename(tmp_path / "seed3")
    module, start = classifier(), WarmStart(tmp_path / "seed{seed}")
    start.setup(SimpleNamespace(ckpt_path=None, fast_dev_run=False, datamodule=Seed), module, "fit")
    assert changed(state(stage1), module) == set()


def test_missing_or_unfitting_weights_are_said(stage1, tmp_path):
    with pytest.raises(
        RunError, match="There is no checkpoint .* to start from: train that run first"
    ):
        fit(classifier(), WarmStart(tmp_path / "none"))
    with pytest.raises(RunError, match=r"(?s)does not fit network .*0\.0\.weight"):
        fit(classifier(), WarmStart(tmp_path / "one", "network.0", "network"))
