"""Heads of a probe: classifiers of the vectors of a frozen encoder."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.errors import ModelError

MIN_SHARE = 1e-6  # of a class without neighbors, so that its logit is finite


class Head(nn.Module):
    """Base of the heads that a :class:`~lightning_modules.networks.Probe` accepts.

    Args:
        width: Size C of the vectors.
        num_classes: Number of classes K.

    Shape:
        Vectors (B, C) to logits (B, K).
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.width = width
        self.num_classes = num_classes


class LinearHead(Head):
    """Linear classifier, as in linear probing.

    Args:
        width: Size C of the vectors.
        num_classes: Number of classes K.
        drop_rate: Dropout probability of the vectors' elements, in [0, 1).
    """

    def __init__(self, width: int, num_classes: int, drop_rate: float = 0.0) -> None:
        super().__init__(width, num_classes)
        self.dropout = nn.Dropout(drop_rate)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.linear(self.dropout(vectors))


class MLPHead(Head):
    """Classifier with one hidden layer and ReLU.

    Args:
        width: Size C of the vectors.
        num_classes: Number of classes K.
        hidden: Size of the hidden layer, at least 1.
        drop_rate: Dropout probability of the hidden layer's elements, in [0, 1).
    """

    def __init__(
        self, width: int, num_classes: int, hidden: int = 512, drop_rate: float = 0.0
    ) -> None:
        super().__init__(width, num_classes)
        self.hidden = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(drop_rate)
        self.linear = nn.Linear(hidden, num_classes)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.linear(self.dropout(self.hidden(vectors).relu()))


class CosineHead(Head):
    """Cosine classifier: z_c = s cos(w_c, f) (https://arxiv.org/abs/1804.09081, eq. 5).

    All classes have weights of the same length, so that no class is preferred for its norm, which
    grows with the number of its images in a linear classifier.

    Args:
        width: Size C of the vectors.
        num_classes: Number of classes K.
        scale: Scale s of the cosines.
        learn_scale: Whether s is trained, starting from ``scale``.
    """

    def __init__(
        self, width: int, num_classes: int, scale: float = 20.0, learn_scale: bool = False
    ) -> None:
        super().__init__(width, num_classes)
        self.weight = nn.Parameter(torch.empty(num_classes, width))
        self.scale = nn.Parameter(torch.tensor(scale), requires_grad=learn_scale)
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, vectors: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(vectors, dim=1), F.normalize(self.weight, dim=1))


class GatheringHead(Head):
    """Base of heads that are computed from all training vectors, without gradients.

    :class:`~lightning_modules.OnePassClassifier` passes each training batch to :meth:`gather`.
    """

    def reset(self) -> None:
        """Forget all vectors."""
        raise NotImplementedError

    def gather(self, vectors: Tensor, label: Tensor) -> None:
        """Take training vectors (B, C) and their labels (B,) into account."""
        raise NotImplementedError


class NearestClassMean(GatheringHead):
    """Nearest class mean classifier (https://arxiv.org/abs/1910.09217, section 4.2).

    The logits are cosines of the vector and the means of the classes' normalized vectors, divided
    by a temperature.

    Args:
        width: Size C of the vectors.
        num_classes: Number of classes K.
        temperature: Temperature of the cosines, greater than 0; changes probabilities only.
    """

    sums: Tensor

    def __init__(self, width: int, num_classes: int, temperature: float = 0.05) -> None:
        super().__init__(width, num_classes)
        self.temperature = temperature
        self.register_buffer("sums", torch.zeros(num_classes, width))

    def reset(self) -> None:
        self.sums.zero_()

    def gather(self, vectors: Tensor, label: Tensor) -> None:
        self.sums.index_add_(0, label, F.normalize(vectors, dim=1).to(self.sums.dtype))

    def forward(self, vectors: Tensor) -> Tensor:
        # The number of images of a class is a factor of its sum, which the cosine ignores.
        cosines = F.linear(F.normalize(vectors, dim=1), F.normalize(self.sums, dim=1))
        return cosines / self.temperature


class KNearestNeighbors(GatheringHead):
    """Weighted k nearest neighbors, as in instance discrimination and DINO.

    Each of the k training vectors with the largest cosines s_i votes for its class with weight
    exp(s_i / T) (https://arxiv.org/abs/1805.01978, section 3.4). The logits are logarithms of the
    votes.

    Args:
        width: Size C of the vectors.
        num_classes: Number of classes K.
        k: Number of neighbors, at least 1.
        temperature: Temperature T of the votes, greater than 0.
    """

    bank: Tensor
    labels: Tensor

    def __init__(
        self, width: int, num_classes: int, k: int = 20, temperature: float = 0.07
    ) -> None:
        super().__init__(width, num_classes)
        if k < 1:
            raise ModelError(f"k={k} neighbors cannot vote: set at least 1.")
        self.k = k
        self.temperature = temperature
        self.register_buffer("bank", torch.zeros(0, width, dtype=torch.float16))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))

    def reset(self) -> None:
        self.bank = self.bank[:0]
        self.labels = self.labels[:0]

    def gather(self, vectors: Tensor, label: Tensor) -> None:
        vectors = F.normalize(vectors, dim=1).to(self.bank.dtype)
        self.bank = torch.cat([self.bank, vectors])
        self.labels = torch.cat([self.labels, label])

    def forward(self, vectors: Tensor) -> Tensor:
        vectors = F.normalize(vectors, dim=1)
        k = min(self.k, len(self.bank))
        cosines, nearest = (vectors @ self.bank.to(vectors.dtype).T).topk(k, dim=1)
        votes = ((cosines - 1) / self.temperature).exp()
        classes = vectors.new_zeros(len(vectors), self.num_classes)
        classes = classes.scatter_add(1, self.labels[nearest], votes)
        return (classes + MIN_SHARE * votes.sum(1, keepdim=True) + torch.finfo().tiny).log()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # The number of vectors is that of the training images.
        for name in ("bank", "labels"):
            if (saved := state_dict.get(f"{prefix}{name}")) is not None:
                current = getattr(self, name)
                setattr(self, name, current.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
