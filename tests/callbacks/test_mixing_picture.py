from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from callbacks.errors import RunError
from callbacks.looking.mixing_picture import GAP, LINE_HEIGHT, TILE, MixingPicture, draw

NAMES = ("mel", "nv", "bcc")
LEFT = [GAP + column * (TILE + GAP) for column in range(6)]


def mixtures(labels=(0, 1, 0, 1, 2, 1), size=16):
    pairs = len(labels) // 2
    image = torch.zeros(2 * pairs, 3, size, size)
    image[::2, 0] = 1  # anchors are red, partners blue
    image[1::2, 2] = 1
    ratio = torch.full((pairs, 2, 2), 0.8)
    ratio[:, 0, 1] = 0  # above on the right
    return {
        "image": image,
        "map": torch.rand(2 * pairs, 1, size, size),
        "label": torch.tensor(labels),
        "ratio": ratio,
    }


class Mixing:
    device = torch.device("cpu")

    def mixtures(self, batch):
        torch.rand(5)  # noise
        return batch


def trainer(epoch=0, rank=0):
    return SimpleNamespace(
        current_epoch=epoch,
        is_global_zero=rank == 0,
        fast_dev_run=False,
        datamodule=SimpleNamespace(class_names=NAMES),
        loggers=[],
        global_step=7,
    )


BATCH = mixtures()


def start(callback, batch_idx=0, **where):
    callback.on_train_batch_start(trainer(**where), Mixing(), BATCH, batch_idx)


def test_mixed_pixels_have_the_ratio_of_their_patch():
    page = draw(mixtures(), NAMES, pairs=1)
    mixed = page.crop((LEFT[5], LINE_HEIGHT + GAP, LEFT[5] + TILE, LINE_HEIGHT + GAP + TILE))
    quarter = TILE // 4
    assert mixed.getpixel((quarter, quarter)) == (204, 0, 51)
    assert mixed.getpixel((3 * quarter, quarter)) == (0, 0, 255)  # the partner's
    assert page.getpixel((LEFT[0] + 5, LINE_HEIGHT + GAP + 5)) == (255, 0, 0)
    assert page.getpixel((LEFT[2] + 5, LINE_HEIGHT + GAP + 5)) == (0, 0, 255)


def test_pairs_shown_are_of_as_many_classes_as_there_are():
    many = mixtures(labels=(0, 1, 0, 1, 2, 1))
    many["image"][4] = 0.5  # the anchor of the third pair, the first of its class
    page = draw(many, NAMES, pairs=2)
    second_row = LINE_HEIGHT + GAP + TILE + GAP + LINE_HEIGHT
    assert page.height == second_row + TILE + GAP + LINE_HEIGHT
    assert page.getpixel((LEFT[0] + 5, second_row + 5)) == (128, 128, 128)


def test_unmixed_pairs_and_pairs_without_maps_can_be_drawn():
    plain = mixtures()
    del plain["map"]
    plain["ratio"][:] = 1
    page = draw(plain, NAMES, pairs=6)
    assert page.getpixel((LEFT[5] + 9, LINE_HEIGHT + GAP + 9)) == (255, 0, 0)


def test_it_is_drawn_at_the_start_of_every_nth_epoch_by_one_process(tmp_path):
    callback = MixingPicture(every_n_epochs=2, dirpath=str(tmp_path))
    for epoch in range(4):
        start(callback, epoch=epoch)
        start(callback, epoch=epoch, batch_idx=1)
    start(MixingPicture(every_n_epochs=1, dirpath=str(tmp_path)), epoch=5, rank=1)
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["epoch0.png", "epoch2.png"]
    with Image.open(tmp_path / "mixing" / "epoch2.png") as picture:
        assert picture.width == 6 * (TILE + GAP) + GAP


def test_it_takes_no_random_numbers_from_the_training(tmp_path):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    start(MixingPicture(dirpath=str(tmp_path)))
    assert torch.equal(torch.get_rng_state(), state)


def test_it_says_where_the_picture_is(tmp_path, capsys):
    callback = MixingPicture(dirpath=str(tmp_path))
    start(callback)
    callback.on_fit_end(trainer(), Mixing())
    assert str(tmp_path / "mixing" / "epoch0.png") in capsys.readouterr().out


def test_it_is_drawn_every_so_many_epochs_or_not_at_all():
    with pytest.raises(RunError, match="1 or more"):
        MixingPicture(every_n_epochs=0)


def test_models_that_mix_nothing_are_refused():
    with pytest.raises(RunError, match="object has no mixtures, which MixingPicture needs"):
        MixingPicture().setup(trainer(), object(), "fit")
