import numpy as np
import pytest

from datamodules.samplers import (
    Bilateral,
    ClassBalanced,
    Natural,
    ProgressivelyBalanced,
    SquareRoot,
)

LABELS = [0] * 6000 + [1] * 600 + [2] * 60


def frequencies(sampler) -> np.ndarray:
    return np.bincount(np.array(LABELS)[list(sampler)], minlength=3) / len(LABELS)


def placed(sampler, **where):
    sampler.place(**where)
    return list(sampler)


def test_natural_shows_every_image_once():
    assert sorted(Natural(LABELS)) == list(range(len(LABELS)))


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (ClassBalanced(LABELS), [1 / 3, 1 / 3, 1 / 3]),
        (SquareRoot(LABELS), np.sqrt([100, 10, 1]) / np.sqrt([100, 10, 1]).sum()),
        (ProgressivelyBalanced(LABELS), np.array([100, 10, 1]) / 111),
    ],
)
def test_class_frequencies(sampler, expected):
    # Five standard deviations of a binomial share over 6,660 draws.
    assert np.abs(frequencies(sampler) - expected).max() < 5 * 0.5 / np.sqrt(len(LABELS))


def test_progressively_balanced_ends_class_balanced():
    sampler = ProgressivelyBalanced(LABELS)
    sampler.place(epoch=10, epochs=10)
    assert np.abs(frequencies(sampler) - 1 / 3).max() < 0.03


@pytest.mark.parametrize("kind", [Natural, ClassBalanced])
def test_order_is_a_function_of_seed_and_epoch(kind):
    sampler = kind(LABELS)
    first = placed(sampler, seed=1, epoch=3)
    assert placed(kind(LABELS), seed=1, epoch=3) == first
    assert placed(sampler, seed=2, epoch=3) != first
    assert placed(sampler, seed=1, epoch=4) != first


@pytest.mark.parametrize("kind", [Natural, ClassBalanced])
def test_ranks_share_one_order(kind):
    whole = placed(kind(LABELS[:-1]), seed=1)
    shares = [placed(kind(LABELS[:-1]), seed=1, rank=r, world_size=2) for r in range(2)]
    assert len(shares[0]) == len(shares[1]) == len(LABELS[:-1]) // 2
    assert [i for pair in zip(*shares, strict=True) for i in pair] == whole[: 2 * len(shares[0])]


def test_start_skips_what_was_seen_in_this_epoch_only():
    sampler = Natural(LABELS)
    whole = placed(sampler, epoch=2)
    assert placed(sampler, epoch=2, start=100) == whole[100:]
    sampler.set_epoch(2)
    assert list(sampler) == whole[100:]
    sampler.set_epoch(3)
    assert len(list(sampler)) == len(sampler) == len(LABELS)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_bilateral_takes_turns_on_every_rank(world_size):
    labels = np.array(LABELS)
    for rank in range(world_size):
        share = placed(Bilateral(LABELS), seed=1, rank=rank, world_size=world_size)
        natural, reversed_ = share[::2], share[1::2]
        assert len(set(natural)) == len(natural)  # without replacement
        frequency = np.bincount(labels[reversed_], minlength=3) / len(reversed_)
        weights = np.array([1 / 100, 1 / 10, 1])
        assert np.abs(frequency - weights / weights.sum()).max() < 5 * 0.5 / len(reversed_) ** 0.5
        assert np.bincount(labels[natural])[0] / len(natural) > 0.85


def test_bilateral_is_a_function_of_seed_and_epoch():
    first = placed(Bilateral(LABELS), seed=1, epoch=2)
    assert placed(Bilateral(LABELS), seed=1, epoch=2) == first
    assert placed(Bilateral(LABELS), seed=1, epoch=3) != first
    assert placed(Bilateral(LABELS), seed=1, epoch=2, start=64) == first[64:]
