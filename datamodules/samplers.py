"""Which images an epoch shows, and in which order.

A sampler is a function of seed and epoch alone, so that a run that was interrupted goes on with
the very images it would have seen. All ranks compute the same order and each takes its share.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """Draws an epoch of N positions in the training set, of which this rank serves its share.

    Args:
        labels: The class of each of the N training images.
    """

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
        """Says where the run stands.

        Args:
            seed: The run's seed.
            epoch: Which epoch the next iteration draws; Lightning counts it up.
            epochs: How many epochs the run has.
            start: How many images of this rank's share the next iteration leaves out, because
                the interrupted run has seen them. Any later epoch starts at 0.
            rank: This process among ``world_size``.
            world_size: Number of processes; each serves floor(N / world_size) images.
        """
        self.seed, self.epoch, self.epochs, self.start = seed, epoch, epochs, start
        self.rank, self.world_size = rank, world_size

    @abstractmethod
    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """The N positions of epoch ``self.epoch``, in order, before they are shared out."""

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return len(self.labels) // self.world_size

    def __iter__(self) -> Iterator[int]:
        order = self.draw(np.random.default_rng((self.seed, self.epoch)))
        share = order[self.rank :: self.world_size][: len(self)]
        return iter(share[self.start :].tolist())


class Natural(EpochSampler):
    """Every image once an epoch, shuffled: instance-balanced sampling."""

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        return generator.permutation(len(self.labels))


class _ByClass(EpochSampler):
    """Draws a class by ``class_probabilities``, then one of its images, with replacement."""

    @abstractmethod
    def class_probabilities(self, counts: np.ndarray) -> np.ndarray:
        """Probability of each class, given its number of images; need not sum to one."""

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        counts = np.bincount(self.labels)
        per_image = self.class_probabilities(counts.clip(min=1)) / counts.clip(min=1)
        p = per_image[self.labels]
        return generator.choice(len(self.labels), size=len(self.labels), p=p / p.sum())


class ClassBalanced(_ByClass):
    """Every class equally often: CE-resample and over-sampling, p_c = 1 / K."""

    def class_probabilities(self, counts: np.ndarray) -> np.ndarray:
        return np.ones(len(counts))


class ClassAware(EpochSampler):
    """Classes in turns, in random order, and of each the next few of its shuffled images.

    As BALLAD has it (https://arxiv.org/abs/2111.14745, published code): every class equally often,
    and no image again before all of its class have been shown. The published sampler draws
    K max N_c, of which the training loop takes the first N: an epoch is as long as here. There the
    next one goes through a class where the last one stopped, here it shuffles it anew.

    Args:
        labels: The class of each of the N training images.
        images: How many of a class at a time.
    """

    def __init__(self, labels: Sequence[int], images: int = 4) -> None:
        super().__init__(labels)
        self.images = images

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        classes = np.unique(self.labels)
        rounds = -(-len(self.labels) // (self.images * len(classes)))
        shown = []  # (rounds, images) of each class
        for c in classes:
            own = np.flatnonzero(self.labels == c)
            times = -(-rounds * self.images // len(own))
            stream = np.concatenate([generator.permutation(own) for _ in range(times)])
            shown.append(stream[: rounds * self.images].reshape(rounds, self.images))
        order = generator.permuted(np.tile(np.arange(len(classes)), (rounds, 1)), axis=1)
        taken = np.stack(shown)[order, np.arange(rounds)[:, None]]  # (rounds, classes, images)
        return taken.reshape(-1)[: len(self.labels)]


class SquareRoot(_ByClass):
    """p_c proportional to the square root of N_c (https://arxiv.org/abs/1910.09217, eq. 1)."""

    def class_probabilities(self, counts: np.ndarray) -> np.ndarray:
        return np.sqrt(counts)


class ProgressivelyBalanced(_ByClass):
    """From natural to class-balanced over the training (https://arxiv.org/abs/1910.09217, eq. 2).

    In epoch t of T, p_c = (1 - t/T) N_c / N + (t/T) / K.
    """

    def class_probabilities(self, counts: np.ndarray) -> np.ndarray:
        t = min(self.epoch / self.epochs, 1.0)
        return (1 - t) * counts / counts.sum() + t / len(counts)


class Bilateral(EpochSampler):
    """The two samplers of BBN (https://arxiv.org/abs/1912.02413, section 4.2), in turns.

    Within the share of each process, even positions come from the natural distribution and odd
    ones from the reversed one, p_c proportional to N_max / N_c. An epoch has N / 2 of each, so it
    shows half of the images once and rare ones often.
    """

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        total = len(self.labels)
        half = -(-total // 2)
        counts = np.bincount(self.labels).clip(min=1)
        per_image = (1 / counts**2)[self.labels]  # a class by 1 / N_c, then one of its N_c images
        natural = generator.permutation(total)[:half]
        rare = generator.choice(total, size=half, p=per_image / per_image.sum())
        return _in_turns(natural, rare, self.world_size)[:total]


class Paired(EpochSampler):
    """The pairs of SPMix: even positions are anchors, odd ones the partners they are mixed with.

    Pairs stay together in the share of a process. An epoch has N / 2 of them.

    Args:
        labels: The class of each of the N training images.
        anchors: ``balanced`` draws all classes equally often, so that mixing multiplies the rare
            ones, as in the paper. ``natural`` shows every image once in two epochs, as in the
            published code (https://github.com/Yancy10-1/SPMix).
        partners: ``head`` draws from the most frequent class, whatever the anchor: the paper's
            "head-class image". ``balanced`` draws all classes equally often, as in the code.
            ``more_frequent`` draws from all classes with more images than the anchor's, or from all
            images if there is none; the partner then tells something of the anchor's class.
    """

    def __init__(
        self,
        labels: Sequence[int],
        anchors: Literal["balanced", "natural"] = "balanced",
        partners: Literal["head", "balanced", "more_frequent"] = "head",
    ) -> None:
        super().__init__(labels)
        self.anchors, self.partners = anchors, partners

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        total = len(self.labels)
        half = -(-total // 2)
        balanced = ClassBalanced(self.labels.tolist())
        anchors = (
            balanced.draw(generator)[:half]
            if self.anchors == "balanced"
            else self.every_image(half)
        )
        if self.partners == "balanced":
            partners = balanced.draw(generator)[:half]
        elif self.partners == "head":
            counts = np.bincount(self.labels)
            head = np.flatnonzero(counts[self.labels] == counts.max())
            partners = generator.choice(head, half)
        else:
            partners = self.more_frequent(anchors, generator)
        return _in_turns(anchors, partners, self.world_size)[:total]

    def more_frequent(self, anchors: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """For each anchor an image of a class with more of them, all such images alike."""
        counts = np.bincount(self.labels)
        eligible = (counts * (counts > counts[:, None])).sum(1)  # images, by the anchor's class
        eligible = np.where(eligible == 0, len(self.labels), eligible)[self.labels[anchors]]
        by_frequency = np.argsort(-counts[self.labels], kind="stable")
        return by_frequency[(generator.random(len(anchors)) * eligible).astype(int)]

    def every_image(self, half: int) -> np.ndarray:
        """One half of a permutation in an even epoch, the other half in the next."""
        order = np.random.default_rng((self.seed, self.epoch // 2, 2)).permutation(len(self.labels))
        return order[-half:] if self.epoch % 2 else order[:half]


def _in_turns(first: np.ndarray, second: np.ndarray, world_size: int) -> np.ndarray:
    """Both kinds (n,) in turns within the share of each process, which has every n-th position."""
    blocks = -(-len(first) // world_size)
    pairs = np.stack([np.resize(kind, (blocks, world_size)) for kind in (first, second)], axis=1)
    return pairs.reshape(-1)
