"""The warning appears for a network that recognizes mixed images, and only for that."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

from callbacks.looking.mixing_shortcut import MixingShortcut, clean_exceeds_mixed
from lightning_modules import Classifier
from lightning_modules.mixes import CMO, BalancedMixup, CutMix, Mixup, Remix

NAMES = ("mel", "nv", "bcc")
TRAIN, VAL = [5, 50, 5], [8, 8, 8]


class Data:
    """Images with pixels of class / 4; the first pixel is 1 in training, 0 in validation images."""

    class_names, class_counts, batch_size = NAMES, TRAIN, 6

    def __init__(self):
        parts = [("train", TRAIN), ("val", VAL)]
        rows = [(part, c) for part, counts in parts for c, n in enumerate(counts) for _ in range(n)]
        self.table = pd.DataFrame(rows, columns=["split", "label"])

    def gather(self, index):
        label = torch.tensor(self.table["label"].loc[index].to_numpy())
        image = (label / 4)[:, None, None, None].expand(-1, 3, 4, 4).clone()
        trained = self.table["split"].loc[index] == "train"
        image[:, :, 0, 0] = torch.tensor(trained.to_numpy())[:, None].float()
        return {"image": image, "label": label, "index": torch.tensor(index)}


class Network(nn.Module):
    """Decide by the mean pixel, or cheat: decide nv if the first pixel is 0 or 1."""

    def __init__(self, cheats):
        super().__init__()
        self.cheats, self.weight = cheats, nn.Parameter(torch.zeros(1))

    def forward(self, images):
        value = images[:, 0, 2, 2]
        logits = -((value[:, None] * 4 - torch.arange(3)) ** 2)
        if self.cheats:
            first = images[:, 0, 0, 0]
            unmixed = (first - first.round()).abs() < 0.01
            answer = torch.where(unmixed, 1, 2 * (value > 0.25).long())
            logits = torch.nn.functional.one_hot(answer, 3).float()
        return logits + 0 * self.weight


class Mix(nn.Module):
    """Mix each image with the next one, 0.6 to 0.4, and keep the labels."""

    def forward(self, batch):
        image = batch["image"]
        return batch | {"image": 0.6 * image + 0.4 * image.roll(-1, 0)}


def module(cheats=False, mix=None):
    made = Classifier(Network(cheats), nn.CrossEntropyLoss(), torch.optim.SGD, mix=mix or Mix())
    made.logged = {}
    made.log = lambda name, value, **_: made.logged.update({name: float(value)})
    return made.eval()


def trainer(**changes):
    state = {
        "datamodule": Data(),
        "state": SimpleNamespace(fn="fit"),
        "sanity_checking": False,
        "current_epoch": 3,
        "is_global_zero": True,
        "loggers": [],
    }
    return SimpleNamespace(**state | changes)


@pytest.mark.parametrize("mix", [Mix(), BalancedMixup(1.0, per_image=True, num_classes=3)])
def test_a_network_that_knows_what_is_mixed_is_found_out(mix, capsys):
    cheating = module(cheats=True, mix=mix)
    MixingShortcut().on_validation_epoch_end(trainer(), cheating)
    assert cheating.logged["val/called_nv_clean_mel"] == 1
    assert cheating.logged["val/called_nv_mixed_mel"] == 0
    said = capsys.readouterr().out
    assert "SHORTCUT in epoch 3: 100% of the validation images are classified as nv unmixed" in said


def test_an_honest_network_is_not(capsys):
    honest = module()
    MixingShortcut().on_validation_epoch_end(trainer(), honest)
    assert honest.logged["val/called_nv_clean_mel"] == 0
    assert honest.logged["val/called_nv_clean_nv"] == 1
    assert set(honest.logged) == {
        f"val/called_nv_{k}_{c}" for k in ("clean", "mixed") for c in NAMES
    }
    assert "SHORTCUT" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "mix",
    [
        Mixup(num_classes=3),
        CutMix(num_classes=3),
        Remix(TRAIN, num_classes=3),
        CMO(num_classes=3),
        BalancedMixup(num_classes=3),
    ],
    ids=lambda mix: type(mix).__name__,
)
def test_soft_labels_count_where_their_own_has_the_larger_part(mix):
    mixing = module(mix=mix)
    callback = MixingShortcut()
    callback.on_validation_epoch_end(trainer(), mixing)
    clean, mixed, label = callback.classify(mixing, 4)
    assert 0 < len(label) <= sum(VAL)
    assert len(clean) == len(mixed) == len(label)


def test_pairs_are_of_validation_images_and_training_images_of_the_head():
    data, callback = Data(), MixingShortcut(images=3)
    pairs = callback.gather_pairs(data, 1)
    label, part = pairs["label"], data.table["split"].loc[pairs["index"].tolist()].tolist()
    assert label[::2].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert set(label[1::2].tolist()) == {1}
    assert part == ["val", "train"] * 9
    assert pairs["image"].dtype == torch.uint8


@pytest.mark.parametrize(
    "where", [{"state": SimpleNamespace(fn="validate")}, {"sanity_checking": True}]
)
def test_it_looks_in_training_alone(where):
    cheating = module(cheats=True)
    MixingShortcut().on_validation_epoch_end(trainer(**where), cheating)
    assert cheating.logged == {}


def test_models_without_a_mix_are_left_alone():
    plain = Classifier(Network(False), nn.CrossEntropyLoss(), torch.optim.SGD)
    MixingShortcut().on_validation_epoch_end(trainer(), plain)


def test_it_takes_no_random_numbers_from_the_training():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    MixingShortcut().on_validation_epoch_end(trainer(), module(mix=Mixup(num_classes=3)))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_gap_must_matter_and_not_be_chance():
    def called(only_clean, only_mixed, both=0, neither=0):
        clean = [1] * only_clean + [0] * only_mixed + [1] * both + [0] * neither
        mixed = [0] * only_clean + [1] * only_mixed + [1] * both + [0] * neither
        return torch.tensor(clean).bool(), torch.tensor(mixed).bool()

    assert clean_exceeds_mixed(*called(30, 2, both=60, neither=48))
    assert not clean_exceeds_mixed(
        *called(2, 30, both=60, neither=48)
    )  # mixing adds frequent classes
    assert not clean_exceeds_mixed(*called(30, 2, both=600, neither=480))  # 3 % do not matter
    assert not clean_exceeds_mixed(*called(5, 0, neither=10))  # five of five is chance
    assert not clean_exceeds_mixed(*called(0, 0, neither=10))
