"""The taxonomy of skin lesions: from melanocytic or not, over benign or malignant, to diagnosis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_modules.errors import ModelError

# For ISIC 2018 as in Barata et al., https://doi.org/10.1016/j.patcog.2020.107413.
TREE: dict[str, dict[str, tuple[str, ...]]] = {
    "melanocytic": {"benign": ("nv",), "malignant": ("mel",)},
    "non-melanocytic": {"benign": ("bkl", "df", "vasc"), "malignant": ("bcc", "akiec")},
}


class Taxonomy(nn.Module):
    """The nodes above and including the classes, level by level, as index tensors.

    The paper has three levels, its published code decodes two: melanocytic or not, diagnosis. All
    nodes share one vocabulary, level after level; the last level is the classes in their order. A
    level with a single node decides nothing and is left out. A module, so that its indices follow
    the network to its device.

    Args:
        class_names: Names of the K classes, each a diagnosis of the tree.
        depth: Levels T: 3, 2 (without benign or malignant) or 1 (the diagnosis alone).

    Attributes:
        levels: The names of each level's nodes, coarse to fine.
        slices: Where each level lies in the vocabulary of N nodes.
        paths: (K, T), the node of each level on the way to each class.
        parents: (N,), the node above each node; -1 for the first level.
    """

    def __init__(self, class_names: Sequence[str], depth: int = 2) -> None:
        super().__init__()
        self.paths: Tensor
        self.parents: Tensor
        ways = [_way(name, depth) for name in class_names]
        inner = [_level([way[level] for way in ways]) for level in range(depth - 1)]
        kept = [level for level, names in enumerate(inner) if len(names) > 1]
        self.levels = [*(inner[level] for level in kept), list(class_names)]
        ends = torch.tensor([len(names) for names in self.levels]).cumsum(0).tolist()
        self.slices = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]
        nodes = [name for names in self.levels for name in names]
        paths = torch.tensor([[nodes.index(way[level]) for level in (*kept, -1)] for way in ways])
        parents = torch.full((len(nodes),), -1).index_put((paths[:, 1:],), paths[:, :-1])
        self.register_buffer("paths", paths, persistent=False)
        self.register_buffer("parents", parents, persistent=False)

    @property
    def depth(self) -> int:
        """Levels T."""
        return len(self.levels)

    @property
    def num_nodes(self) -> int:
        """Nodes N of all levels."""
        return len(self.parents)

    def targets(self, label: Tensor) -> Tensor:
        """Nodes (B, T) of labels (B,); shares (B, T, N) of soft labels (B, K)."""
        if label.ndim == 1:
            return self.paths[label]
        return torch.einsum("bk,ktn->btn", label, self._one_hot(label.dtype))

    def at_level(self, label: Tensor, level: int) -> Tensor:
        """Labels (B,) in the order of a level; soft labels or probabilities (B, K) add up there."""
        at, target = self.slices[level], self.targets(label)[:, level]
        return target - at.start if label.ndim == 1 else target[:, at]

    def parent_at_level(self, level: int) -> Tensor:
        """The parent of each node of a level, in the order of the level above; 0 at the first."""
        parents = self.parents[self.slices[level]]
        return parents - self.slices[level - 1].start if level else parents.clamp(min=0)

    def members(self) -> Tensor:
        """Whether a node is of a level, (T, N)."""
        return self._one_hot(torch.float).sum(0) > 0

    def _one_hot(self, dtype: torch.dtype) -> Tensor:
        return nn.functional.one_hot(self.paths, self.num_nodes).to(dtype)


def _way(diagnosis: str, depth: int) -> tuple[str, ...]:
    """The ``depth`` nodes that lead to a diagnosis: benign nodes of two branches are two nodes."""
    if depth not in (1, 2, 3):
        raise ModelError(f"A taxonomy has 1, 2 or 3 levels, not {depth}.")
    for branch, kinds in TREE.items():
        for kind, diagnoses in kinds.items():
            if diagnosis in diagnoses:
                return (*(branch, f"{branch} {kind}")[: depth - 1], diagnosis)
    raise ModelError(f"The taxonomy has no diagnosis {diagnosis!r}.")


def _level(names: Sequence[str]) -> list[str]:
    """The nodes that occur, in the order of the tree, whatever the order of the classes."""
    nodes = [
        node
        for branch, kinds in TREE.items()
        for node in (branch, *(f"{branch} {kind}" for kind in kinds))
    ]
    return [node for node in nodes if node in names]
