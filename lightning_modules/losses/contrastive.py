"""Input of contrastive losses: anchors and the keys that they are compared with."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from lightning_modules.losses.distributed import gather, gather_with_gradient, rank
from lightning_modules.losses.sample_loss import at_least_float32

EMPTY_SLOT = -1  # label of a slot of a queue that is not filled yet


class ContrastiveBatch:
    """Anchors of this process and the keys of all processes that they are compared with.

    Args:
        anchors: Embeddings (A, D) of length 1.
        label: Classes (A,) of the anchors.
        logits: Logits (A, K) of the classifier for the anchors.
        keys: Embeddings (N, D) of length 1.
        key_label: Classes (N,) of the keys; -1 for keys that are not compared.
        own: Column (A,) of each anchor among the keys; -1 for an anchor that is not a key.
        target: Labels (A,), or soft labels (A, K), that the logits are trained on; ``label`` by
            default.

    Examples:
        >>> embedding = torch.nn.functional.normalize(torch.rand(4, 8), dim=1)
        >>> label, logits = torch.tensor([0, 0, 1, 1]), torch.zeros(4, 2)
        >>> ContrastiveBatch.of_all(embedding, label, logits).positives.sum(1)
        tensor([1, 1, 1, 1])
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
        self.anchors = anchors
        self.label = label
        self.logits = logits
        self.keys = keys
        self.key_label = key_label
        self.own = own
        self.target = label if target is None else target

    @classmethod
    def of_all(cls, embedding: Tensor, label: Tensor, logits: Tensor) -> ContrastiveBatch:
        """A batch whose keys are the embeddings of all processes.

        Args:
            embedding: Embeddings (M, D) of length 1, with the same M in all processes.
            label: Classes (M,).
            logits: Logits (A, K) of the first A embeddings, which are the anchors.
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

    def beside(self, keys: Tensor, key_label: Tensor) -> ContrastiveBatch:
        """A batch with further keys (N', D) and labels (N',), the same in all processes."""
        return ContrastiveBatch(
            anchors=self.anchors,
            label=self.label,
            logits=self.logits,
            keys=torch.cat([self.keys, keys]),
            key_label=torch.cat([self.key_label, key_label]),
            own=self.own,
            target=self.target,
        )

    def similarity(self, temperature: float) -> Tensor:
        """Cosines (A, N) divided by the temperature, float32 or better."""
        anchors, keys = at_least_float32(self.anchors), at_least_float32(self.keys)
        with torch.autocast(anchors.device.type, enabled=False):
            return anchors @ keys.T / temperature

    @cached_property
    def others(self) -> Tensor:
        """Mask (A, N) of the keys that each anchor is compared with: all but itself."""
        columns = torch.arange(len(self.keys), device=self.own.device)
        return (self.key_label != EMPTY_SLOT) & (columns != self.own[:, None])

    @cached_property
    def positives(self) -> Tensor:
        """Mask (A, N) of the other keys of the anchor's class."""
        return self.others & (self.key_label == self.label[:, None])


def log_sum_exp(x: Tensor, among: Tensor) -> Tensor:
    """Log-sum-exp (A, 1) of each row of x (A, N) over the mask ``among`` (A, N); always finite."""
    # Not -inf: a row without any column would give NaN gradients.
    return x.masked_fill(~among, torch.finfo(x.dtype).min).logsumexp(1, keepdim=True)
