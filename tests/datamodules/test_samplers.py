import numpy as np
import pytest

from datamodules.samplers import (
    Bilateral,
    ClassAware,
    ClassBalanced,
    Natural,
    Paired,
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
        (ClassAware(LABELS), [1 / 3, 1 / 3, 1 / 3]),
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


PAIRINGS = [
    pytest.param(("balanced", "head"), id="paper"),
    pytest.param(("natural", "balanced"), id="code"),
    pytest.param(("balanced", "more_frequent"), id="literal"),
    pytest.param(("natural", "reversed"), id="reversed"),
]


def pairs(pairing, rank=0, world_size=1, **where):
    """Anchors and partners (n, 2) in the share of one process; pairs are never divided."""
    share = placed(Paired(LABELS, *pairing), rank=rank, world_size=world_size, **where)
    return np.array(share[: len(share) // 2 * 2]).reshape(-1, 2)


@pytest.mark.parametrize("world_size", [1, 2])
def test_anchors_of_the_paper_are_balanced_and_their_partners_of_the_head_class(world_size):
    labels = np.array(LABELS)
    for rank in range(world_size):
        found = pairs(("balanced", "head"), rank, world_size, seed=1)
        anchor, partner = labels[found].T
        frequency = np.bincount(anchor, minlength=3) / len(anchor)
        assert np.abs(frequency - 1 / 3).max() < 5 * 0.5 / len(anchor) ** 0.5
        assert (partner == 0).all()


def test_classes_of_one_frequency_are_all_head_classes():
    labels = np.array([0] * 60 + [1] * 60 + [2] * 20)
    order = np.array(placed(Paired(labels.tolist()), seed=3)).reshape(-1, 2)
    assert set(labels[order[:, 1]]) == {0, 1}


@pytest.mark.parametrize("world_size", [1, 2])
def test_partners_can_be_of_more_frequent_classes(world_size):
    labels = np.array(LABELS)
    for rank in range(world_size):
        anchor, partner = labels[pairs(("balanced", "more_frequent"), rank, world_size, seed=1)].T
        frequency = np.bincount(anchor, minlength=3) / len(anchor)
        assert np.abs(frequency - 1 / 3).max() < 5 * 0.5 / len(anchor) ** 0.5
        counts = np.bincount(labels)
        rare = anchor != 0
        assert (counts[partner[rare]] > counts[anchor[rare]]).all()
        rarest = partner[anchor == 2]  # of the others, by their images: 6,000 to 600
        share = (rarest == 1).mean()
        assert abs(share - 1 / 11) < 5 * 0.5 / len(rarest) ** 0.5
        assert {0, 1} <= set(partner[anchor == 0])  # nothing is more frequent: any image


def test_classes_of_one_frequency_are_no_partners_of_each_other():
    labels = np.array([0] * 60 + [1] * 20 + [2] * 20)
    order = np.array(placed(Paired(labels.tolist(), partners="more_frequent"), seed=3)).reshape(
        -1, 2
    )
    anchor, partner = labels[order].T
    assert set(partner[anchor > 0]) == {0}


@pytest.mark.parametrize("world_size", [1, 2])
def test_partners_of_the_code_are_balanced_and_every_image_is_an_anchor(world_size):
    labels, anchors = np.array(LABELS), []
    for epoch in (4, 5):
        for rank in range(world_size):
            found = pairs(("natural", "balanced"), rank, world_size, seed=1, epoch=epoch)
            anchors += found[:, 0].tolist()
            frequency = np.bincount(labels[found[:, 1]], minlength=3) / len(found)
            assert np.abs(frequency - 1 / 3).max() < 5 * 0.5 / len(found) ** 0.5
    assert sorted(anchors) == list(range(len(LABELS)))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("world_size", [1, 2])
def test_partners_can_be_drawn_by_a_power_of_the_class_size(power, world_size):
    labels, expected = np.array(LABELS), np.array([6000, 600, 60]) ** -power
    for rank in range(world_size):
        found = pairs(("natural", "reversed", power), rank, world_size, seed=1)
        frequency = np.bincount(labels[found[:, 1]], minlength=3) / len(found)
        assert np.abs(frequency - expected / expected.sum()).max() < 5 * 0.5 / len(found) ** 0.5
        rarest = found[labels[found[:, 1]] == 2, 1]
        shown = np.bincount(rarest - 6600, minlength=60) / len(rarest)  # alike
        assert np.abs(shown - 1 / 60).max() < 5 * (1 / 60 / len(rarest)) ** 0.5


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_two_processes_share_the_pairs_of_one(pairing):
    whole = pairs(pairing, seed=1, epoch=2)
    first, second = (pairs(pairing, rank, 2, seed=1, epoch=2) for rank in range(2))
    both = np.stack([first, second], axis=1).reshape(-1, 2)
    assert (both == whole[: len(both)]).all()


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_pairs_go_on_within_an_epoch(pairing):
    sampler = Paired(LABELS, *pairing)
    whole = placed(sampler, seed=1, epoch=3, rank=1, world_size=2)
    assert placed(sampler, seed=1, epoch=3, start=64, rank=1, world_size=2) == whole[64:]
    assert placed(Paired(LABELS, *pairing), seed=1, epoch=3, rank=1, world_size=2) == whole
    assert placed(sampler, seed=1, epoch=5, rank=1, world_size=2) != whole
    assert placed(sampler, seed=2, epoch=3, rank=1, world_size=2) != whole


def test_class_aware_shows_all_of_a_class_before_any_again():
    order = np.array(list(ClassAware(LABELS, images=4)))
    labels = np.array(LABELS)[order]
    turns = labels[: len(labels) // 12 * 12].reshape(-1, 3, 4)
    assert (turns == turns[..., :1]).all()  # four images of a class
    assert (np.sort(turns[..., 0]) == [0, 1, 2]).all()  # and each class once
    assert len({tuple(turn) for turn in turns[..., 0]}) == 6
    rare = order[labels == 2]
    assert all(len(set(rare[i : i + 60])) == 60 for i in range(0, len(rare) - 59, 60))
    assert len(set(order[labels == 0])) == (labels == 0).sum()


def test_class_aware_order_is_a_function_of_seed_and_epoch():
    sampler = ClassAware(LABELS)
    first = placed(sampler, seed=1, epoch=2)
    assert placed(sampler, seed=1, epoch=2, start=100) == first[100:]
    assert placed(sampler, seed=1, epoch=3) != first
    shares = [placed(sampler, seed=1, epoch=2, rank=rank, world_size=2) for rank in (0, 1)]
    assert shares[0] == first[::2]
    assert shares[1] == first[1::2]
