"""Samplers: which training images an epoch shows, and in which order.

A sampler is a function of seed and epoch alone, so that an interrupted run resumes with the very
images it would have seen. All ranks compute the same order, and each serves its share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from torch.utils.data import Sampler


class EpochSampler(Sampler[int], ABC):
    """Base of the samplers that ``data.sampler`` accepts.

    An epoch is N positions in the training set, of which this rank serves its share.

    Args:
        labels: Class of each of the N training images.
    """

    ordered = False  # whether neighbors belong together, as those of ``pairs`` do

    def __init__(self, labels: Sequence[int]) -> None:
        self.labels = np.asarray(labels)
        self.place()

    def place(
        self,
        seed: int = 0,
        epoch: int = 0,
        epochs: int = 1,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Set the point of the run from which the next iteration continues.

        Args:
            seed: Seed of the run.
            epoch: Epoch of the next iteration, from 0; Lightning increments it.
            epochs: Number of epochs of the run.
            start: Number of images of this rank's share to skip, because the interrupted run has
                seen them. Any later epoch starts at 0.
            rank: Number of this process, from 0.
            world_size: Number of processes; each serves floor(N / world_size) images.
        """
        self.seed = seed
        self.epoch = epoch
        self.epochs = epochs
        self.start = start
        self.rank = rank
        self.world_size = world_size

    @abstractmethod
    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """The N positions of epoch ``self.epoch``, in order, for all ranks together."""

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch = epoch
            self.start = 0

    def __len__(self) -> int:
        return len(self.labels) // self.world_size

    def __iter__(self) -> Iterator[int]:
        order = self.draw(np.random.default_rng((self.seed, self.epoch)))
        share = order[self.rank :: self.world_size][: len(self)]
        return iter(share[self.start :].tolist())


class Natural(EpochSampler):
    """Instance-balanced sampling: every image once per epoch, shuffled.

    Examples:
        >>> sorted(Natural([0, 0, 0, 1]))
        [0, 1, 2, 3]
    """

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        return generator.permutation(len(self.labels))


class _ByClass(EpochSampler):
    """Draw a class by ``class_probabilities``, then one of its images, with replacement."""

    @abstractmethod
    def class_probabilities(self, counts: np.ndarray) -> np.ndarray:
        """The probability of each class given its number of images, up to a common factor."""

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        counts = np.bincount(self.labels)
        per_image = self.class_probabilities(counts.clip(min=1)) / counts.clip(min=1)
        p = per_image[self.labels]
        return generator.choice(len(self.labels), size=len(self.labels), p=p / p.sum())


class ClassBalanced(_ByClass):
    """Class-balanced sampling (CE-resample, over-sampling): every class equally often, p_c = 1 / K.

    Examples:
        >>> labels = np.array([0] * 9000 + [1] * 1000)
        >>> shown = labels[list(ClassBalanced(labels.tolist()))]
        >>> len(shown), round(float(shown.mean()), 1)  # half of them from the rare class
        (10000, 0.5)
    """

    def class_probabilities(self, counts: np.ndarray) -> np.ndarray:
        return np.ones(len(counts))


class ClassAware(EpochSampler):
    """Class-aware sampling: the classes in turn, with the next few shuffled images of each.

    As in BALLAD (https://arxiv.org/abs/2111.14745, published code): every class equally often, and
    no image again before all of its class have been shown. The published sampler draws K max N_c
    positions, of which the training loop takes the first N, so its epochs are as long as here. Its
    next epoch continues each class where the last one stopped; ours shuffles the class anew.

    Args:
        labels: Class of each of the N training images.
        images: Number of images of a class per turn, at least 1.

    Examples:
        >>> labels = np.array([0] * 10 + [1] * 2)
        >>> turns = labels[list(ClassAware(labels.tolist(), images=2))].reshape(-1, 2)
        >>> bool((turns[:, 0] == turns[:, 1]).all()), np.bincount(turns[:, 0]).tolist()
        (True, [3, 3])
    """

    ordered = True

    def __init__(self, labels: Sequence[int], images: int = 4) -> None:
        super().__init__(labels)
        self.images = images

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        classes = np.unique(self.labels)
        rounds = -(-len(self.labels) // (self.images * len(classes)))
        streams = []  # (rounds, images) of each class
        for c in classes:
            members = np.flatnonzero(self.labels == c)
            times = -(-rounds * self.images // len(members))
            stream = np.concatenate([generator.permutation(members) for _ in range(times)])
            streams.append(stream[: rounds * self.images].reshape(rounds, self.images))
        order = generator.permuted(np.tile(np.arange(len(classes)), (rounds, 1)), axis=1)
        turns = np.stack(streams)[order, np.arange(rounds)[:, None]]  # (rounds, classes, images)
        return turns.reshape(-1)[: len(self.labels)]


class SquareRoot(_ByClass):
    """Square-root sampling: p_c proportional to the square root of N_c.

    See https://arxiv.org/abs/1910.09217, eq. 1.

    Examples:
        >>> SquareRoot([0, 1]).class_probabilities(np.array([900, 100]))
        array([30., 10.])
    """

    def class_probabilities(self, counts: np.ndarray) -> np.ndarray:
        return np.sqrt(counts)


class ProgressivelyBalanced(_ByClass):
    """Progressively balanced sampling: from natural to class-balanced in the course of the run.

    In epoch t of T, p_c = (1 - t/T) N_c / N + (t/T) / K (https://arxiv.org/abs/1910.09217, eq. 2).

    Examples:
        >>> sampler = ProgressivelyBalanced([0, 1])
        >>> sampler.place(epoch=5, epochs=10)
        >>> sampler.class_probabilities(np.array([900, 100]))
        array([0.7, 0.3])
    """

    def class_probabilities(self, counts: np.ndarray) -> np.ndarray:
        t = min(self.epoch / self.epochs, 1.0)
        return (1 - t) * counts / counts.sum() + t / len(counts)


class Bilateral(EpochSampler):
    """Bilateral sampling of BBN (https://arxiv.org/abs/1912.02413, section 4.2).

    Within the share of each process, even positions come from the natural distribution and odd
    ones from the reversed one, p_c proportional to N_max / N_c. An epoch has N / 2 of each, so it
    shows half of the images once and images of rare classes many times.

    Examples:
        >>> labels = np.array([0] * 9000 + [1] * 1000)
        >>> shown = labels[list(Bilateral(labels.tolist()))]
        >>> [round(float(shown[first::2].mean()), 1) for first in (0, 1)]  # natural, reversed
        [0.1, 0.9]
    """

    pairs = "natural and reversed"

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        total = len(self.labels)
        half = -(-total // 2)
        natural = generator.permutation(total)[:half]
        rare = _reversed(self.labels, half, 1.0, generator)
        return _interleave(natural, rare, self.world_size)[:total]


class Paired(EpochSampler):
    """Pairs for SPMix, CMO and Balanced-MixUp: anchors at even positions, each before its partner.

    Pairs stay together in the share of a process. An epoch has N / 2 of them.

    Args:
        labels: Class of each of the N training images.
        anchors: Distribution of the anchors. ``balanced`` draws all classes equally often, so that
            mixing multiplies the rare ones, as in SPMix's paper. ``natural`` shows every image once
            in two epochs, as in its published code (https://github.com/Yancy10-1/SPMix), CMO and
            Balanced-MixUp.
        partners: Distribution of the partners. ``head`` draws from the most frequent class,
            whatever the anchor's: the "head-class image" of SPMix's paper. ``balanced`` draws all
            classes equally often, as in its published code, that of CMO and Balanced-MixUp.
            ``more_frequent`` draws from all classes with more images than the anchor's, or from all
            images if there are none; the partner then gives away something about the anchor's
            class. ``reversed`` draws class c with a probability proportional to 1 / N_c^power,
            whatever the anchor's: q(r, k) of CMO's paper, with r the power.
        power: Exponent of ``reversed``; 0 is ``balanced``.

    Examples:
        >>> labels = np.array([0] * 9000 + [1] * 1000)
        >>> shown = labels[list(Paired(labels.tolist(), partners="head"))]
        >>> [round(float(shown[first::2].mean()), 1) for first in (0, 1)]  # anchors, partners
        [0.5, 0.0]
    """

    pairs = "anchor and partner"

    def __init__(
        self,
        labels: Sequence[int],
        anchors: Literal["balanced", "natural"] = "balanced",
        partners: Literal["head", "balanced", "more_frequent", "reversed"] = "head",
        power: float = 1.0,
    ) -> None:
        super().__init__(labels)
        self.anchors = anchors
        self.partners = partners
        self.power = power

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        total = len(self.labels)
        half = -(-total // 2)
        balanced = ClassBalanced(self.labels.tolist())
        anchors = (
            balanced.draw(generator)[:half]
            if self.anchors == "balanced"
            else self.half_of_all(half)
        )
        if self.partners == "balanced":
            partners = balanced.draw(generator)[:half]
        elif self.partners == "head":
            counts = np.bincount(self.labels)
            head = np.flatnonzero(counts[self.labels] == counts.max())
            partners = generator.choice(head, half)
        elif self.partners == "reversed":
            partners = _reversed(self.labels, half, self.power, generator)
        else:
            partners = self.more_frequent(anchors, generator)
        return _interleave(anchors, partners, self.world_size)[:total]

    def more_frequent(self, anchors: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """For each anchor an image of a class with more images, all of these equally likely."""
        counts = np.bincount(self.labels)
        eligible = (counts * (counts > counts[:, None])).sum(1)  # images, by the anchor's class
        eligible = np.where(eligible == 0, len(self.labels), eligible)[self.labels[anchors]]
        by_frequency = np.argsort(-counts[self.labels], kind="stable")
        return by_frequency[(generator.random(len(anchors)) * eligible).astype(int)]

    def half_of_all(self, half: int) -> np.ndarray:
        """One half of a permutation in an even epoch, the other half in the next epoch."""
        order = np.random.default_rng((self.seed, self.epoch // 2, 2)).permutation(len(self.labels))
        return order[-half:] if self.epoch % 2 else order[:half]


def _reversed(
    labels: np.ndarray, size: int, power: float, generator: np.random.Generator
) -> np.ndarray:
    """Images (size,) of classes drawn in proportion to 1 / N_c^power, with replacement."""
    counts = np.bincount(labels).clip(min=1).astype(float)
    per_image = (1 / counts ** (power + 1))[labels]  # a class, then one of its N_c images
    return generator.choice(len(labels), size=size, p=per_image / per_image.sum())


def _interleave(first: np.ndarray, second: np.ndarray, world_size: int) -> np.ndarray:
    """Both arrays (n,) alternating within the share of each process, every world_size-th entry."""
    blocks = -(-len(first) // world_size)
    pairs = np.stack([np.resize(kind, (blocks, world_size)) for kind in (first, second)], axis=1)
    return pairs.reshape(-1)
