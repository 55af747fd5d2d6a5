"""Random erasing: rectangles of the right size, place and number."""

import pytest
import torch

from datamodules.random_erasing import erase, spanned
from datamodules.transforms import Augment

STILL = {"rotation": 0.0, "zoom": (1.0, 1.0), "shift": 0.0}
PLAIN = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def erased(number=4000, size=40, probability=1.0):
    """Masks (number, size, size) of what was erased; 2 occurs in no noise."""
    torch.manual_seed(0)
    image = torch.full((number, 3, size, size), 2.0)
    erase(image, probability)
    return image.ne(2).all(1)


def test_what_is_erased_is_one_rectangle_of_noise():
    for mask in erased(number=200):
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)
        for line in (rows, columns):
            first, last = line.nonzero()[[0, -1], 0]
            assert line[first : last + 1].all()


def test_area_and_ratio_have_the_ranges_of_the_paper():
    mask = erased()
    height, width = mask.any(2).sum(1), mask.any(1).sum(1)
    area = height * width / 40**2
    assert area.min() >= 0.015  # sides are rounded
    assert area.max() <= 0.42
    assert area.median().item() == pytest.approx(0.21, abs=0.02)
    inside = (height < 40) & (width < 40)
    ratio = (height / width)[inside].log()
    assert ratio.mean().item() == pytest.approx(0, abs=0.05)
    assert 1.1 < ratio.abs().max() < 1.5


def test_every_pixel_can_be_erased_and_the_share_is_that_asked_for():
    often = erased(probability=0.3)
    assert often.any((1, 2)).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert often.any(0).all()


@pytest.mark.parametrize(("place", "expected"), [(0.0, 0), (0.5, 4), (0.999, 7)])
def test_rectangles_lie_inside_the_image(place, expected):
    mask = spanned(torch.tensor([0.3]), torch.tensor([place]), 10)[0]
    assert mask.nonzero()[:, 0].tolist() == [expected + i for i in range(3)]


def test_augment_erases_the_image_and_not_its_mask():
    torch.manual_seed(0)
    batch = {"image": torch.ones(16, 3, 24, 24), "mask": torch.ones(16, 1, 24, 24)}
    out = Augment(**STILL, **PLAIN, erasing=1.0)(batch)
    assert out["image"].lt(0.999).any(3).any(2).any(1).all()
    torch.testing.assert_close(out["mask"], batch["mask"])


def test_augment_takes_operations_of_rand_augment():
    torch.manual_seed(0)
    picture = torch.rand(64, 3, 24, 24)
    augment = Augment(**STILL, **PLAIN, operations=1, magnitude=1.0)
    inverse, factors = augment.draw(picture)
    moved = (inverse[:, :, :2].abs() - torch.eye(2)).abs().amax((1, 2)) > 1e-6
    moved |= inverse[:, :, 2].abs().amax(1) > 1e-6
    colored = (factors - 1).abs().amax(1) > 1e-6
    assert moved.float().mean().item() == pytest.approx(5 / 16, abs=0.15)
    assert colored.float().mean().item() == pytest.approx(3 / 16, abs=0.15)
    assert not (moved & colored).any()  # one operation each
