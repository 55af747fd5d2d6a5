import math

import pytest
import torch
import torchvision.transforms.v2.functional as TF

from datamodules import transforms
from datamodules.apply_torch import warp
from datamodules.rand_augment import affine, rand_augment
from datamodules.transforms import Augment, RandomTransform
from datamodules.views import RandomCrop, Views

PLAIN = {"jitter": 0.0}


@pytest.fixture
def batch():
    torch.manual_seed(0)
    picture = torch.rand(16, 3, 24, 24)
    return {
        "image": picture,
        "saliency": picture[:, :1].clone(),
        "label": torch.arange(16) % 7,
        "index": torch.arange(16),
    }


class Nothing(RandomTransform):
    def draw(self, image):
        return torch.eye(2, 3).expand(len(image), 2, 3), torch.ones(len(image), 3)


def test_views_come_one_after_the_other(batch):
    seen = Views([Nothing(), RandomCrop(), Augment()])(batch)
    assert {name: len(value) for name, value in seen.items()} == dict.fromkeys(batch, 48)
    first, second, _ = (value.chunk(3) for value in (seen["image"], seen["label"], seen["index"]))
    assert torch.allclose(first[0], batch["image"], atol=1e-5)
    assert all(torch.equal(part, batch["label"]) for part in second)
    assert not torch.allclose(first[1], first[0])
    assert not torch.allclose(first[1], first[2])


@pytest.mark.parametrize("operations", [0, 2])
def test_maps_see_the_geometry_of_the_image(batch, operations, monkeypatch):
    monkeypatch.setattr(transforms, "adjust", lambda image, _: image)
    view = RandomCrop(operations=operations)
    seen = view(batch)
    assert torch.allclose(seen["image"][:, :1], seen["saliency"], atol=1e-6)
    assert not torch.allclose(seen["saliency"], batch["saliency"], atol=0.1)


def test_crop_is_torchvisions(batch):
    """A quarter of the image, of the same shape, in the upper left corner."""
    half, first, last = (torch.full((16,), value) for value in (0.5, 0.0, 1.0))
    inverse = RandomCrop(area=(0.25, 0.25)).crop(half, half, first, first, last, last)
    crop = warp(batch, inverse[None])["image"]
    expected = TF.resized_crop(batch["image"], 0, 0, 12, 12, [24, 24], antialias=False)
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    assert torch.allclose(crop[inside][..., :-1, :-1], expected[inside][..., :-1, :-1], atol=1e-5)
    mirrored = RandomCrop(area=(0.25, 0.25)).crop(half, half, first, first, first, last)
    assert torch.allclose(warp(batch, mirrored[None])["image"], crop.flip(3), atol=1e-5)


def test_crops_stay_within_the_picture_and_have_the_area_asked_for():
    draws = torch.rand(6, 1000, generator=torch.Generator().manual_seed(0))
    inverse = RandomCrop(area=(0.08, 0.5)).crop(*draws)
    width, height = inverse[:, 0, 0].abs(), inverse[:, 1, 1].abs()
    assert (width + inverse[:, 0, 2].abs()).max() <= 1 + 1e-6
    assert (height + inverse[:, 1, 2].abs()).max() <= 1 + 1e-6
    area, ratio = width * height, width / height
    assert (area.min().item(), area.max().item()) == pytest.approx((0.08, 0.5), abs=0.01)
    assert (ratio.min().item(), ratio.max().item()) == pytest.approx((0.75, 4 / 3), abs=0.01)


def test_operations_are_drawn_evenly_and_half_of_them_carried_out():
    torch.manual_seed(0)
    image = torch.zeros(4000, 3, 2, 2)
    drawn = rand_augment(image, operations=1, magnitude=1.0)
    neutral = torch.tensor([0.0] * 5 + [1.0] * 3)
    done = drawn != neutral
    assert done.sum(1).max() == 1
    assert done.float().mean(0).tolist() == pytest.approx([1 / 16] * 8, abs=0.02)
    largest = (drawn - neutral).abs().max(0).values.tolist()
    assert largest == pytest.approx([math.pi / 6, 0.3, 0.3, 0.45, 0.45, 0.9, 0.9, 0.9])
    assert (drawn[:, 5:] >= 0).all()
    assert torch.equal(rand_augment(image, 0, 1.0), neutral.expand(4000, 8))


def test_neutral_operations_move_nothing():
    assert torch.equal(affine(torch.zeros(2, 5)), torch.eye(3).expand(2, 3, 3))


def test_gray_takes_all_colour_away(batch):
    image = RandomCrop(gray=1.0)(batch)["image"]
    assert torch.allclose(image, image[:, :1].expand(-1, 3, -1, -1), atol=1e-6)
    assert not torch.allclose(RandomCrop()(batch)["image"][:, 0], image[:, 0], atol=0.01)


def test_blur_is_of_its_share_of_the_batch():
    many = {"image": torch.rand(400, 3, 8, 8)}
    view = RandomCrop(area=(1.0, 1.0), ratio=(1.0, 1.0), blur=0.5, sigma=(60.0, 60.0), **PLAIN)
    spread = view(many)["image"].flatten(1).std(1)
    assert (spread < 0.2).sum() == 200
    again = view(many)["image"].flatten(1).std(1)
    assert not torch.equal(spread < 0.2, again < 0.2)
