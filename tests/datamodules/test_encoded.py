"""Encoded images: computed once, of the right orientation, and of these images and this encoder."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from datamodules import HAM10000, DataError
from datamodules.encoded import encoded_arrays, frozen_encoder
from datamodules.splits import Balanced
from datamodules.transforms import ORIENTATIONS, Augment, RandomOrientation, orient
from lightning_modules.networks.ensemble import orientation

CPU = torch.device("cpu")


class Corner(nn.Module):
    """An encoder whose outputs tell orientations apart; counts the images that it sees."""

    def __init__(self, key="a"):
        super().__init__()
        self.encoder_key, self.seen = key, 0

    def encode(self, images):
        self.seen += len(images)
        return images[:, :, :2, :3].flatten(1)


@pytest.fixture
def pixels(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (70, 4, 4, 3), np.uint8)
    np.save(tmp_path / "image-4-abc.npy", images)
    return np.load(tmp_path / "image-4-abc.npy", mmap_mode="r")


def test_each_orientation_is_encoded_once(pixels):
    encoder = Corner()
    arrays = encoded_arrays(pixels, encoder, CPU)
    images = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2) / 255
    for number, array in arrays.items():
        expected = Corner().encode(orientation(images, int(number))).half().numpy()
        assert np.array_equal(array, expected)
        assert not array.flags.writeable
    assert len(arrays) == ORIENTATIONS
    before = encoder.seen
    encoded_arrays(pixels, encoder, CPU)
    assert encoder.seen == before + 1  # the first image tells the shape


def test_another_encoder_or_other_images_give_other_arrays(pixels, tmp_path):
    np.save(tmp_path / "image-4-xyz.npy", 255 - np.array(pixels))
    others = np.load(tmp_path / "image-4-xyz.npy", mmap_mode="r")
    names = {
        encoded_arrays(source, Corner(key), CPU, orientations=1)["0"].filename
        for source in (pixels, others)
        for key in "ab"
    }
    assert len(names) == 4


def test_orientations_are_those_of_the_views():
    images = torch.rand(2, 3, 5, 5)
    for number in range(ORIENTATIONS):
        assert torch.equal(orient(images, number), orientation(images, number))


def test_an_encoded_orientation_is_chosen_as_an_image_is_turned():
    images = torch.rand(40, 3, 5, 5)
    batch = {"image": images, "mask": images[:, :1], "label": torch.arange(40)}
    encoded = torch.stack([orient(images, n).flatten(1) for n in range(ORIENTATIONS)], dim=1)
    torch.manual_seed(0)
    turned = RandomOrientation()(batch)
    torch.manual_seed(0)
    chosen = RandomOrientation()({"image": encoded, "label": torch.arange(40)})
    assert torch.equal(turned["image"].flatten(1), chosen["image"])
    assert torch.equal(turned["image"][:, :1], turned["mask"])
    same = (turned["image"] == images).flatten(1).all(1)
    assert 0 < same.sum() < 20
    assert torch.equal(RandomOrientation(1)(batch)["image"], images)
    with pytest.raises(DataError, match="number=9 is out of range"):
        RandomOrientation(9)


@pytest.mark.parametrize("options", [{"train_transform": Augment()}, {"mask": True}])
def test_options_that_need_pixels_are_refused(tmp_path, options):
    settings = {"train_transform": RandomOrientation()} | options
    with pytest.raises(DataError, match="no pixels to augment"):
        HAM10000(tmp_path, Balanced(), encoded=True, **settings)


def test_a_network_without_an_encoder_is_refused():
    trainer = SimpleNamespace(lightning_module=nn.Sequential(Corner()))
    assert frozen_encoder(trainer).encoder_key == "a"
    trainer.lightning_module = nn.Linear(2, 2)
    with pytest.raises(DataError, match="does not have"):
        frozen_encoder(trainer)
