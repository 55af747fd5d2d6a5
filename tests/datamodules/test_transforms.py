import kornia.geometry.transform as kornia
import pytest
import torch
import torchvision.transforms.v2.functional as TF

from datamodules.apply_torch import adjust, grid
from datamodules.transforms import Augment

STILL = {"rotation": 0.0, "zoom": (1.0, 1.0), "shift": 0.0}
PLAIN = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


@pytest.fixture
def batch():
    torch.manual_seed(0)
    picture = torch.rand(16, 3, 24, 24)
    return {"image": picture, "mask": picture[:, :1].clone(), "label": torch.arange(16)}


def test_image_and_mask_see_the_same_geometry(batch):
    out = Augment(**PLAIN)(batch)
    assert torch.allclose(out["image"][:, :1], out["mask"], atol=1e-6)
    assert not torch.allclose(out["mask"], batch["mask"], atol=0.1)
    assert torch.equal(out["label"], batch["label"])


def test_colour_leaves_the_mask_alone(batch):
    out = Augment(**STILL)(batch)
    flips = [batch["mask"].flip(dims) for dims in ((), (2,), (3,), (2, 3))]
    for i in range(16):
        assert min((out["mask"][i] - flip[i]).abs().max() for flip in flips) < 1e-5
    assert not torch.allclose(out["image"][:, :1], out["mask"], atol=0.01)


def test_grid_is_that_of_torch():
    inverse = torch.randn(4, 2, 3)
    expected = torch.nn.functional.affine_grid(inverse, [4, 3, 15, 20], align_corners=False)
    torch.testing.assert_close(grid(inverse, 15, 20), expected)


def test_geometry_is_an_affine_map_of_the_plane(batch):
    """Compared with kornia: rotation by 30 degrees about the center and zoom by 1.5."""
    augment = Augment(rotation=60, zoom=(1.0, 2.25), shift=0.0, **PLAIN)
    draw = torch.full((16,), 0.75)  # 30 degrees
    centred, unflipped = torch.full((16,), 0.5), torch.ones(16)
    theta = augment.geometry(draw, centred, centred, centred, unflipped, unflipped)
    grid = torch.nn.functional.affine_grid(theta, [16, 3, 24, 24], align_corners=False)
    ours = torch.nn.functional.grid_sample(batch["image"], grid, align_corners=False)
    centre = torch.full((16, 2), 11.5)
    matrix = kornia.get_rotation_matrix2d(centre, torch.full((16,), 30.0), torch.full((16, 2), 1.5))
    theirs = kornia.warp_affine(batch["image"], matrix, (24, 24), align_corners=True)
    inside = (slice(None), slice(None), slice(8, 16), slice(8, 16))
    assert torch.allclose(ours[inside], theirs[inside], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("brightness", TF.adjust_brightness),
        ("contrast", TF.adjust_contrast),
        ("saturation", TF.adjust_saturation),
    ],
)
def test_colour_factors_are_torchvisions(batch, name, theirs):
    augment = Augment(**(PLAIN | {name: 0.4}))
    draws = dict.fromkeys(("brightness", "contrast", "saturation"), torch.full((16,), 0.5))
    draws[name] = torch.full((16,), 0.75)  # a factor of 1.2
    ours = adjust(batch["image"], augment.colors(*draws.values()))
    expected = torch.stack([theirs(image, 1.2) for image in batch["image"]])
    assert torch.allclose(ours, expected, atol=2e-3)  # torchvision rounds the luminance weights


def test_same_seed_same_pictures(batch):
    torch.manual_seed(3)
    first = Augment()(batch)["image"]
    torch.manual_seed(3)
    assert torch.equal(Augment()(batch)["image"], first)
    assert not torch.equal(Augment()(batch)["image"], first)
    assert first.min() >= 0
    assert first.max() <= 1
