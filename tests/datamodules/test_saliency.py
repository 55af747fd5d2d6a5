"""Saliency against a fixture, made with opencv-contrib-python-headless 5.0.0 (not installed).

The images are noise (96 x 80 pixels), a dark ring with a spot in it (ring) and images of
``datamodules.synthetic`` of 100 x 75 (mel, df) and 160 x 120 (vasc), each with the map that OpenCV
computes with its own radii::

    saliency = cv2.saliency.StaticSaliencyFineGrained_create()
    maps = {}
    for name, rgb in pictures.items():
        _, answer = saliency.computeSaliency(np.ascontiguousarray(rgb[..., ::-1]))
        maps[f"{name}_saliency"] = np.rint(255 * answer).astype(np.uint8)
    np.savez_compressed("opencv_saliency.npz", **pictures, **maps)

All pixels agree, except where OpenCV wraps around. On larger images (600 x 450) its float32
integral image rounds, and 0.15 % of its pixels differ from ours by more than one gray level.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.saliency import RADII, fine_grained_saliency, scaled_radii

RECORDED = np.load(Path(__file__).with_name("opencv_saliency.npz"))


def picture(name):
    return torch.from_numpy(RECORDED[name]).permute(2, 0, 1)[None]


@pytest.mark.parametrize("name", ["noise", "mel", "df", "vasc"])
def test_equals_opencv(name):
    ours = fine_grained_saliency(picture(name), radii=RADII)
    np.testing.assert_array_equal(ours[0, 0].numpy(), RECORDED[f"{name}_saliency"])


def test_batch_is_as_one_by_one():
    batch = torch.cat([picture("mel"), picture("df")])
    together = fine_grained_saliency(batch)
    assert together.dtype == torch.uint8
    assert together.shape == (2, 1, 75, 100)
    assert torch.equal(together, torch.cat([fine_grained_saliency(one[None]) for one in batch]))


def test_memory_layout_does_not_matter():
    channels_last = picture("mel").contiguous(memory_format=torch.channels_last)
    contiguous = picture("mel").contiguous()
    assert torch.equal(fine_grained_saliency(channels_last), fine_grained_saliency(contiguous))


@pytest.mark.parametrize("value", [0, 137, 255])
def test_constant_image_has_none(value):
    image = torch.full((2, 3, 12, 16), value, dtype=torch.uint8)
    assert not fine_grained_saliency(image).any()


def test_a_constant_offset_changes_nothing():
    gray = torch.randint(0, 200, (1, 1, 40, 60), dtype=torch.uint8).expand(1, 3, 40, 60)
    assert torch.equal(fine_grained_saliency(gray), fine_grained_saliency(gray + 50))


def disc(background, foreground):
    y, x = torch.meshgrid(torch.arange(75) - 37, torch.arange(100) - 50, indexing="ij")
    inside = x**2 + y**2 < 15**2
    image = torch.where(inside, foreground, background).to(torch.uint8)
    return image.expand(1, 3, 75, 100), inside


@pytest.mark.parametrize(("background", "foreground"), [(220, 60), (60, 220)])
def test_a_disc_stands_out(background, foreground):
    image, inside = disc(background, foreground)
    saliency = fine_grained_saliency(image)[0, 0].float()
    assert saliency[inside].mean() > 4 * saliency[~inside].mean()
    assert saliency.max() == 255


def test_saturates_where_opencv_wraps():
    # The spot is brighter than its dark surround and darker than everything beyond.
    ours, opencv = fine_grained_saliency(picture("ring"), RADII)[0, 0], RECORDED["ring_saliency"]
    assert ours[96, 96] == 255
    assert opencv[96, 96] < 128
    exact = ours.numpy() < 255
    np.testing.assert_array_equal(ours.numpy()[exact], opencv[exact])


def test_radii_follow_the_size_of_the_image():
    assert scaled_radii(450, 600) == list(RADII)
    assert scaled_radii(150, 200) == [4, 8, 16, 9, 19, 37]
    assert min(scaled_radii(8, 8)) == 1


@pytest.mark.parametrize(("height", "width"), [(2, 2), (3, 7), (64, 5)])
def test_tiny_images(height, width):
    image = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    assert fine_grained_saliency(image).shape == (1, 1, height, width)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_same_on_the_gpu():
    images = picture("vasc")
    assert torch.equal(fine_grained_saliency(images.cuda()).cpu(), fine_grained_saliency(images))
