"""The two ways to apply a transform: OpenCV on 8 bits on a CPU, and torch on floats."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

from datamodules import apply_opencv, apply_torch, transforms
from datamodules.apply_torch import color_maps
from datamodules.loader import to_floats
from datamodules.transforms import Augment, RandomOrientation
from datamodules.views import RandomCrop, Views

ROOT = Path(__file__).parents[2]
HEIGHT, WIDTH = 20, 28
TRANSFORMS = {
    "Augment": Augment(),
    "Augment, all options": Augment(operations=2, magnitude=1.0, erasing=0.5),
    "reflected many times": Augment(zoom=(0.1, 0.2), shift=2.0),
    "RandomCrop": RandomCrop(operations=2, magnitude=1.0),
    "gray and blur": RandomCrop(gray=0.5, blur=0.5, sigma=(1.0, 20.0)),
    "Views": Views([Augment(), RandomCrop(gray=0.2, blur=0.5)]),
}


@pytest.fixture
def batch():
    """Noise, in which neighbors differ as much as pixels can."""
    generator = torch.Generator().manual_seed(0)
    planes = torch.randint(256, (6, HEIGHT, WIDTH, 5), dtype=torch.uint8, generator=generator)
    planes = planes.permute(0, 3, 1, 2)
    return {
        "image": planes[:, :3],
        "mask": planes[:, 3:4] // 128 * 255,
        "saliency": planes[:, 4:],
        "label": torch.arange(6),
    }


def rounding(factors=None):
    """Largest difference in units of 1/255, as the docstring of ``change`` explains it."""
    # Coordinates of OpenCV 4 are off by 1/64 pixel at most, along both axes.
    coordinates = 0.0 if int(cv2.__version__[0]) >= 5 else 2 * 255 / 64
    warped = 0.5 + coordinates + 0.05  # the last for sums in float32
    if factors is None:
        return warped
    matrix, weight = color_maps(factors)
    amplified = (matrix.abs().sum(2).amax() + weight.abs().amax()).item() * warped
    return amplified + 3 * 255 / 2048 + 0.5 + 0.05


def both(transform, batch, seed=3):
    torch.manual_seed(seed)
    floats, after = transform(to_floats(batch)), torch.get_rng_state()
    torch.manual_seed(seed)
    eight_bit = transform(batch)
    assert torch.equal(torch.get_rng_state(), after)  # the same draws, and as many
    return eight_bit, floats


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("maps", [(), ("mask",), ("saliency",), ("mask", "saliency")])
def test_both_ways_agree_within_rounding(batch, name, maps, monkeypatch):
    drawn = []
    adjust = apply_torch.adjust

    def spy(image, factors):
        drawn.append(factors)
        return adjust(image, factors)

    monkeypatch.setattr(transforms, "adjust", spy)
    batch = {key: batch[key] for key in ("image", "label", *maps)}
    before = {key: value.clone() for key, value in batch.items()}
    eight_bit, floats = both(TRANSFORMS[name], batch)
    assert eight_bit.keys() == floats.keys() == batch.keys()
    assert torch.equal(eight_bit["label"], floats["label"])
    for key in ("image", *maps):
        assert eight_bit[key].dtype == floats[key].dtype == torch.float32
        assert eight_bit[key].shape == floats[key].shape
        bound = rounding(drawn[0]) if key == "image" else rounding()
        assert 255 * (eight_bit[key] - floats[key]).abs().max() <= bound
        assert floats[key].std() > 0.05  # nothing is lost in a constant
    assert all(torch.equal(batch[key], before[key]) for key in batch)


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0])
def test_no_change_is_exact(batch, angle):
    """Flips and quarter turns move pixels onto pixels, borders included."""
    square = {key: batch[key][..., :HEIGHT] for key in ("image", "mask", "saliency")}
    turn = torch.tensor(angle).deg2rad()
    inverse = torch.stack([turn.cos(), -turn.sin(), turn * 0, turn.sin(), turn.cos(), turn * 0])
    inverse = inverse.view(1, 1, 2, 3).expand(1, 6, 2, 3)
    out = apply_opencv.change(square, inverse, torch.ones(6, 3))
    for key, value in to_floats(square).items():
        # The pixel at (x, y) comes from the turned (x, y), which is a turn the other way.
        turned = torch.rot90(value, round(angle / 90), (2, 3))
        torch.testing.assert_close(out[key], turned, rtol=0, atol=1e-6)


def test_any_memory_layout_and_number_of_threads_gives_the_same(batch):
    contiguous = {key: value.contiguous() for key, value in batch.items()}
    assert not batch["image"].is_contiguous()
    transform, threads = TRANSFORMS["Views"], torch.get_num_threads()
    expected, _ = both(transform, batch)
    opencv = cv2.getNumThreads()
    try:
        torch.set_num_threads(3)
        torch.manual_seed(3)
        seen = transform(contiguous)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(seen[key], expected[key]) for key in expected)
    assert cv2.getNumThreads() == opencv


def test_floats_and_mixed_types_are_left_to_torch(batch, monkeypatch):
    def refuse(*_):
        raise AssertionError("OpenCV is for 8 bits")

    mixed = batch | {"saliency": batch["saliency"] / 255}
    expected, _ = both(Augment(), batch)
    monkeypatch.setattr(transforms, "change", refuse)
    torch.manual_seed(3)
    seen = Augment()(mixed)
    assert 255 * (seen["saliency"] - expected["saliency"]).abs().max() <= rounding()
    Augment()(to_floats(batch))
    with pytest.raises(AssertionError, match="8 bits"):
        Augment()(batch)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_blur_is_kornias(layout):
    image = torch.rand(5, 3, 20, 24).contiguous(memory_format=layout)
    chosen, sigma = torch.tensor([4, 0, 2]), torch.tensor([2.0, 1.0, 0.01])
    ours, theirs = image.clone(), image.clone()
    apply_opencv.blur(ours, chosen, 13, sigma)
    apply_torch.blur(theirs, chosen, 13, sigma)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert torch.equal(ours[[1, 3]], image[[1, 3]])
    assert (ours[4] - image[4]).abs().max() > 0.1


def test_orientations_of_8_bits_are_exact(batch):
    square = {key: value[..., :HEIGHT] for key, value in batch.items() if key != "label"}
    eight_bit, floats = both(RandomOrientation(), square)
    for key, value in to_floats(eight_bit).items():
        assert torch.equal(value, floats[key])


FORK = """
import os, cv2, numpy
from datamodules.apply_opencv import in_threads
cv2.setNumThreads(2)
cv2.GaussianBlur(numpy.random.rand(3000, 3000), (31, 31), 3)  # starts OpenCV's threads
if child := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or cv2.getNumThreads() != 2)
in_threads(print, 1)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked")
def test_a_forked_process_augments_as_well():
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", FORK], env=environment, timeout=60, check=True)
