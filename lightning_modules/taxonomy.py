"""Taxonomy of the classes, such as melanocytic or not, benign or malignant, diagnosis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.errors import ModelError

Tree = Mapping[str, Any]


class Taxonomy(nn.Module):
    """Taxonomy of the classes as index tensors, level by level.

    All nodes share one vocabulary, level after level; the last level holds the classes in their
    order, the others hold their nodes in the order of the tree. Nodes of the same name in two
    branches are two nodes. Levels with a single node are left out. This is a module so that its
    indices move to the network's device.

    Args:
        class_names: Names of the K classes, each a leaf of the tree.
        tree: Nested mappings with lists of classes as leaves, all at the same depth.
        depth: Number of levels T, from 1 (the classes alone) to those of the tree; the upper ones
            are kept. Barata et al. (https://doi.org/10.1016/j.patcog.2020.107413) describe three
            levels, and their published code decodes two, melanocytic or not and diagnosis.

    Attributes:
        levels: Names of the nodes of each level, coarse to fine.
        slices: Position of each level in the vocabulary of N nodes.
        paths: Nodes (K, T) on the path to each class.
        parents: Node (N,) above each node; -1 for the first level.

    Raises:
        ModelError: A class is not in the tree, or the tree has fewer levels.

    Examples:
        >>> tree = {"melanocytic": ["mel", "nv"], "non-melanocytic": ["bcc"]}
        >>> taxonomy = Taxonomy(["mel", "nv", "bcc"], tree)
        >>> taxonomy.levels
        [['melanocytic', 'non-melanocytic'], ['mel', 'nv', 'bcc']]
        >>> taxonomy.paths.tolist()
        [[0, 2], [0, 3], [1, 4]]
    """

    def __init__(self, class_names: Sequence[str], tree: Tree | None, depth: int = 2) -> None:
        super().__init__()
        self.paths: Tensor
        self.parents: Tensor
        branches = dict(_branches(tree or {}))
        named_paths = [_path(name, branches, depth) for name in class_names]
        occurring = {node for path in named_paths for node in path}
        inner = [
            [n for n in dict.fromkeys(b[level] for b in branches.values()) if n in occurring]
            for level in range(depth - 1)
        ]
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


def _branches(tree: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each class of a tree with the names of the nodes above it, coarse to fine."""
    if isinstance(tree, Mapping):
        for name, branch in tree.items():
            yield from _branches(branch, (*above, f"{above[-1]} {name}" if above else str(name)))
    else:
        yield from ((str(name), above) for name in tree)


def _path(name: str, branches: Mapping[str, tuple[str, ...]], depth: int) -> tuple[str, ...]:
    """Names of the ``depth`` nodes down to a class."""
    levels = 1 + min(map(len, branches.values()), default=0)
    if not 1 <= depth <= levels:
        raise ModelError(
            f"The depth of the taxonomy is {depth}, and that of the data set has {levels} levels: "
            "set 1 to this number, or describe the levels by `taxonomy` in the data set's YAML "
            "file."
        )
    if depth > 1 and name not in branches:
        raise ModelError(
            f"The taxonomy has no class {name!r}: add it to `taxonomy` in the data set's YAML "
            "file, or train a classifier without levels."
        )
    return (*branches.get(name, ())[: depth - 1], name)
