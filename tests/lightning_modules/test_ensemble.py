import pytest
import torch
from torch import nn

from lightning_modules.networks.ensemble import ORIENTATIONS, Ensemble, orientation


def member(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))


IMAGES = torch.rand(3, 3, 4, 4)


def test_an_ensemble_is_the_mean_of_probabilities():
    members = [member(seed) for seed in range(3)]
    expected = sum(m(IMAGES).softmax(1) for m in members) / 3
    torch.testing.assert_close(Ensemble(members)(IMAGES).softmax(1), expected)
    torch.testing.assert_close(Ensemble(members)(IMAGES).exp(), expected)


def test_so_is_test_time_augmentation():
    model, total = member(0), torch.zeros(3, 5)
    for turns in range(4):
        for flipped in (IMAGES, IMAGES.flip(-1)):
            total += model(flipped.rot90(turns, (-2, -1))).softmax(1)
    torch.testing.assert_close(Ensemble([model], ORIENTATIONS)(IMAGES).exp(), total / 8)


def test_views_are_the_eight_symmetries_and_the_first_is_the_image():
    image = torch.arange(4.0).view(1, 1, 2, 2)
    assert torch.equal(orientation(image, 0), image)
    seen = {tuple(orientation(image, number).flatten().tolist()) for number in range(ORIENTATIONS)}
    assert len(seen) == 8
    with pytest.raises(ValueError, match="1 to 8 orientations"):
        Ensemble([], views=9)


def test_one_member_and_one_view_are_the_network():
    torch.testing.assert_close(
        Ensemble([member(0)])(IMAGES).softmax(1), member(0)(IMAGES).softmax(1)
    )


def test_probabilities_that_round_to_0_stay_finite():
    class Sure(nn.Module):
        def forward(self, images):
            return torch.tensor([[500.0, -500.0]])

    assert Ensemble([Sure(), Sure()])(IMAGES).isfinite().all()
