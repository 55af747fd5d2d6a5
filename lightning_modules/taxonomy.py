"""Taxonomy of skin lesions: melanocytic or not, benign or malignant, diagnosis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_modules.errors import ModelError

# The tree for ISIC 2018 of Barata et al., https://doi.org/10.1016/j.patcog.2020.107413.
TREE: dict[str, dict[str, tuple[str, ...]]] = {
    "melanocytic": {"benign": ("nv",), "malignant": ("mel",)},
    "non-melanocytic": {"benign": ("bkl", "df", "vasc"), "malignant": ("bcc", "akiec")},
}


class Taxonomy(nn.Module):
    """Taxonomy of the classes as index tensors, level by level.

    The paper has three levels; its published code decodes two, melanocytic or not and diagnosis.
    All nodes share one vocabulary, level after level; the last level holds the classes in their
    order. Levels with a single node are left out. This is a module so that its indices move to the
    network's device.

    Args:
        class_names: Names of the K classes, each a diagnosis of the tree.
        depth: Number of levels T: 3, 2 (without benign or malignant) or 1 (the diagnosis alone).

    Attributes:
        levels: Names of the nodes of each level, coarse to fine.
        slices: Position of each level in the vocabulary of N nodes.
        paths: Nodes (K, T) on the path to each class.
        parents: Node (N,) above each node; -1 for the first level.

    Examples:
        >>> taxonomy = Taxonomy(["mel", "nv", "bcc"], depth=2)
        >>> taxonomy.levels
        [['melanocytic', 'non-melanocytic'], ['mel', 'nv', 'bcc']]
        >>> taxonomy.paths.tolist()
        [[0, 2], [0, 3], [1, 4]]
    """

    def __init__(self, class_names: Sequence[str], depth: int = 2) -> None:
        super().__init__()
        self.paths: Tensor
        self.parents: Tensor
        named_paths = [_path(name, depth) for name in class_names]
        inner = [_level([path[level] for path in named_paths]) for level in range(depth - 1)]
        kept = [level for level, names in enumerate(inner) if len(names) > 1]
        self.levels = [*(inner[level] for level in kept), list(class_names)]
        ends = torch.tensor([len(names) for names in self.levels]).cumsum(0).tolist()
        self.slices = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]
        nodes = [name for names in self.levels for name in names]
        paths = torch.tensor(
            [[nodes.index(path[level]) for level in (*kept, -1)] for path in named_paths]
        )
        parents = torch.full((len(nodes),), -1).index_put((paths[:, 1:],), paths[:, :-1])
        self.register_buffer("paths", paths, persistent=False)
        self.register_buffer("parents", parents, persistent=False)

    @property
    def depth(self) -> int:
        """Number of levels T."""
        return len(self.levels)

    @property
    def num_nodes(self) -> int:
        """Number of nodes N of all levels."""
        return len(self.parents)

    def targets(self, label: Tensor) -> Tensor:
        """Nodes (B, T) of labels (B,), or shares (B, T, N) of soft labels (B, K)."""
        if label.ndim == 1:
            return self.paths[label]
        return torch.einsum("bk,ktn->btn", label, self._one_hot(label.dtype))

    def at_level(self, label: Tensor, level: int) -> Tensor:
        """Labels (B,) at a level; soft labels or probabilities (B, K) are summed by node."""
        at, target = self.slices[level], self.targets(label)[:, level]
        return target - at.start if label.ndim == 1 else target[:, at]

    def parent_at_level(self, level: int) -> Tensor:
        """Parent of each node of a level, in the order of the level above; 0 at the first."""
        parents = self.parents[self.slices[level]]
        return parents - self.slices[level - 1].start if level else parents.clamp(min=0)

    def members(self) -> Tensor:
        """Mask (T, N) of the nodes of each level."""
        return self._one_hot(torch.float).sum(0) > 0

    def _one_hot(self, dtype: torch.dtype) -> Tensor:
        return nn.functional.one_hot(self.paths, self.num_nodes).to(dtype)


def _path(diagnosis: str, depth: int) -> tuple[str, ...]:
    """Names of the ``depth`` nodes down to a diagnosis; each branch has its own benign node."""
    if depth not in (1, 2, 3):
        raise ModelError(f"The depth of the taxonomy is {depth}: set 1, 2 or 3.")
    for branch, kinds in TREE.items():
        for kind, diagnoses in kinds.items():
            if diagnosis in diagnoses:
                return (*(branch, f"{branch} {kind}")[: depth - 1], diagnosis)
    raise ModelError(
        f"The taxonomy has no diagnosis {diagnosis!r}: add it to TREE in {__name__}, or train a "
        "classifier without levels."
    )


def _level(names: Sequence[str]) -> list[str]:
    """Names of the nodes that occur, in the order of the tree."""
    nodes = [
        node
        for branch, kinds in TREE.items()
        for node in (branch, *(f"{branch} {kind}" for kind in kinds))
    ]
    return [node for node in nodes if node in names]
