"""What contrastive losses compare: anchors with keys."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from lightning_modules.losses.distributed import gather, gather_with_gradient, rank
from lightning_modules.losses.sample_loss import at_least_float32

NOTHING = -1  # the label of a slot of a queue that is not yet filled


class Contrast:
    """Anchors of this process, and the keys of all processes that they are compared with.

    Args:
        anchors: Embeddings (A, D) of length 1.
        label: Their classes (A,).
        logits: Logits (A, K) of the classifier for them.
        keys: Embeddings (N, D) of length 1.
        key_label: Their classes (N,); -1 is a key that is compared with nothing.
        own: The anchors themselves among the keys, as columns (A,); -1 for an anchor that is not.
        target: Labels that the logits are trained on, (A,) or soft (A, K); ``label`` if not given.
    """

    def __init__(
        self,
        anchors: Tensor,
        label: Tensor,
        logits: Tensor,
        keys: Tensor,
        key_label: Tensor,
        own: Tensor,
        target: Tensor | None = None,
    ) -> None:
        self.anchors, self.label, self.logits = anchors, label, logits
        self.keys, self.key_label, self.own = keys, key_label, own
        self.target = label if target is None else target

    @classmethod
    def of_all(cls, embedding: Tensor, label: Tensor, logits: Tensor) -> Contrast:
        """Embeddings (M, D) with labels (M,), of which the first A, with ``logits``, are anchors.

        The keys are the embeddings of all processes, which must have M of them each.
        """
        anchors = len(logits)
        return cls(
            anchors=embedding[:anchors],
            label=label[:anchors],
            logits=logits,
            keys=gather_with_gradient(embedding),
            key_label=gather(label),
            own=rank() * len(embedding) + torch.arange(anchors, device=label.device),
        )

    def beside(self, keys: Tensor, key_label: Tensor) -> Contrast:
        """With more keys (N', D) and their labels (N',), which are the same in all processes."""
        return Contrast(
            anchors=self.anchors,
            label=self.label,
            logits=self.logits,
            keys=torch.cat([self.keys, keys]),
            key_label=torch.cat([self.key_label, key_label]),
            own=self.own,
            target=self.target,
        )

    def similarity(self, temperature: float) -> Tensor:
        """Cosines over the temperature (A, N), float32 or better."""
        anchors, keys = at_least_float32(self.anchors), at_least_float32(self.keys)
        with torch.autocast(anchors.device.type, enabled=False):
            return anchors @ keys.T / temperature

    @cached_property
    def others(self) -> Tensor:
        """Which keys an anchor is compared with (A, N): those that are there, without itself."""
        columns = torch.arange(len(self.keys), device=self.own.device)
        return (self.key_label != NOTHING) & (columns != self.own[:, None])

    @cached_property
    def positives(self) -> Tensor:
        """Which of the others have the anchor's class (A, N)."""
        return self.others & (self.key_label == self.label[:, None])


def log_sum_exp(x: Tensor, among: Tensor) -> Tensor:
    """Of each row of x (A, N) over its columns ``among`` (A, N), to (A, 1); always finite."""
    # Not by -inf, of which a row without any column would make gradients that are not numbers.
    return x.masked_fill(~among, torch.finfo(x.dtype).min).logsumexp(1, keepdim=True)
