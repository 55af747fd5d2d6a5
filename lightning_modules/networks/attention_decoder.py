"""Recurrent attention decoder: predicts the path through the taxonomy, one level per step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_modules.networks.network import HierarchicalNetwork
from lightning_modules.networks.timm_network import TimmNetwork
from lightning_modules.taxonomy import Taxonomy, Tree

# Instead of minus infinity, because 0 times infinity is NaN for soft labels.
EXCLUDED = -1e4


class StateAttention(nn.Module):
    """Channel and spatial attention conditioned on the state s = [c; h] of the decoder.

    beta = sigmoid(W2 tanh(ReLU(W0 mean X) + ReLU(W0 max X) + W1 s)), X' = beta X;
    alpha = softmax(v . dropout(tanh(X' + W3 s))) over the L positions, context z = sum alpha X'.

    Args:
        channels: Number of channels D of the features.
        state: Size S of the state.
        reduction: Factor by which the channel attention narrows the features.
        drop_rate: Dropout probability of the scores, in [0, 1).

    Shape:
        Features X (B, L, D) and state (B, S) to context (B, D) and alpha (B, L).
    """

    def __init__(
        self, channels: int, state: int, reduction: int = 2, drop_rate: float = 0.2
    ) -> None:
        super().__init__()
        squeezed = max(channels // reduction, 1)
        self.w0 = nn.Linear(channels, squeezed)
        self.w1 = nn.Linear(state, squeezed)
        self.w2 = nn.Linear(squeezed, channels)
        self.w3 = nn.Linear(state, channels)
        self.v = nn.Linear(channels, 1)
        self.dropout = nn.Dropout(drop_rate)

    def channel(self, features: Tensor, state: Tensor) -> Tensor:
        """Channel attention beta (B, D), in (0, 1)."""
        pooled = self.w0(features.mean(1)).relu() + self.w0(features.amax(1)).relu()
        return self.w2((pooled + self.w1(state)).tanh()).sigmoid()

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        features = features * self.channel(features, state)[:, None]
        scores = self.v(self.dropout((features + self.w3(state)[:, None]).tanh())).squeeze(-1)
        alpha = scores.float().softmax(1)  # half precision is too coarse for hundreds of positions
        return torch.einsum("bl,bld->bd", alpha.to(features.dtype), features), alpha


class AttentionDecoder(TimmNetwork, HierarchicalNetwork):
    """Hierarchical attention model of Barata et al. (https://doi.org/10.1016/j.patcog.2020.107413).

    An LSTM descends the :class:`Taxonomy`. At every step it attends to the features, receives the
    context and the embedding of the parent node (zeros at the first step), and scores the nodes of
    all levels in one vocabulary. The paper embeds nodes by GloVe vectors refined with Mittens,
    which are not published; here the embedding is learned. The published code keeps the dropout of
    the LSTM's input active in tests; this class does not. As in the code, the last max-pool of a
    VGG is removed.

    Args:
        name: timm's name of a convolutional network, the encoder.
        class_names: Names of the K classes; the command line takes them from the data.
        taxonomy: Tree of the classes, see :class:`Taxonomy`; the command line takes it from the
            data.
        depth: Number of levels of the :class:`Taxonomy` and of steps T of the decoder, 1 to 3.
        hidden: Size H of the LSTM's hidden state, at least 1.
        embed_dim: Dimension E of the embedding of nodes, at least 1.
        reduction: Factor by which the channel attention narrows the features.
        level_masked: Whether a step may only choose nodes of its own level. In the paper it may
            choose any node.
        decision: Decision rule. ``greedy``, as in the paper: the last step decides among the K
            classes, given the most probable node of each earlier step. ``paths``: the probability
            of a class is the product of P(node | parent) along its path, with a softmax over
            siblings; these probabilities sum to 1, and one wrong step does not decide alone.
        drop_rate: Dropout probability of the pooled features and the LSTM's input and output.
        attention_drop_rate: Dropout probability of the scores of the spatial attention.
        **kwargs: As for :class:`TimmNetwork`.

    Shape:
        Images (B, 3, H, W) in [0, 1] to logits (B, K) of the classes.

    Attributes:
        keep_attention: Whether to keep the attention maps of the last batch.
        attention: Attention maps (B, h, w) under the keys ``level1`` and so on, if they are kept.
    """

    excluded: Tensor

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        taxonomy: Tree | None = None,
        depth: int = 2,
        hidden: int = 512,
        embed_dim: int = 50,
        reduction: int = 2,
        level_masked: bool = False,
        decision: Literal["greedy", "paths"] = "greedy",
        drop_rate: float = 0.5,
        attention_drop_rate: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, num_classes=0, **kwargs)
        self.drop_head()
        self.drop_last_pool()
        self.taxonomy = Taxonomy(class_names, taxonomy, depth)
        self.decision = decision
        excluded = ~self.taxonomy.members() & level_masked  # (T, N)
        self.register_buffer("excluded", excluded, persistent=False)
        self.dropout = nn.Dropout(drop_rate)
        self.keep_attention = False
        self.attention: dict[str, Tensor] = {}
        width, nodes = self.channels, self.taxonomy.num_nodes
        self.initial = nn.Linear(width, 2 * hidden)
        self.attend = StateAttention(width, 2 * hidden, reduction, attention_drop_rate)
        self.embedding = nn.Embedding(nodes, embed_dim)
        self.lstm = nn.LSTMCell(width + embed_dim, hidden)
        self.vocabulary = nn.Linear(2 * hidden, nodes)

    def forward(self, images: Tensor) -> Tensor:
        return self.levels(images)[-1]

    def levels(self, images: Tensor) -> list[Tensor]:
        """Logits (B, C) over the C nodes of each level, coarse to fine, by the ``decision``."""
        features = self.features(images)
        if self.decision == "paths":
            return self.score_paths(features)
        logits = self.decode(features)
        return [logits[:, level, at] for level, at in enumerate(self.taxonomy.slices)]

    def decode(self, features: Tensor, path: Tensor | None = None) -> Tensor:
        """Logits (B, T, N) over all nodes.

        Args:
            features: Feature map (B, D, h, w).
            path: True nodes (B, T), given to each step as its predecessors (teacher forcing); None
                gives it the most probable nodes instead.
        """
        positions, logits, maps = features.flatten(2).transpose(1, 2), [], []
        state, embedded, mask = self.start(positions)
        for level in range(self.taxonomy.depth):
            scores, state, alpha = self.step(positions, state, embedded, mask)
            logits.append(scores.masked_fill(self.excluded[level], EXCLUDED))
            maps.append(alpha)
            node = logits[-1].argmax(1) if path is None else path[:, level]
            embedded = self.embedding(node)
        self.keep(maps, features)
        return torch.stack(logits, dim=1)

    def score_paths(self, features: Tensor) -> list[Tensor]:
        """Log-probabilities (B, C) of the nodes of each level, from features (B, D, h, w).

        log P(node) = log P(parent) + log P(node | parent): one step from each parent serves all
        its children, and each continues from a copy of its state.
        """
        positions, levels, maps = features.flatten(2).transpose(1, 2), [], []
        state, embedded, mask = self.start(positions)
        above = positions.new_zeros(len(positions), 1, dtype=torch.float)  # (B, P), of the parents
        for level, at in enumerate(self.taxonomy.slices):
            count, parent = above.shape[1], self.taxonomy.parent_at_level(level)
            positions_each, mask_each = (x.repeat_interleave(count, 0) for x in (positions, mask))
            scores, state, alpha = self.step(positions_each, state, embedded, mask_each)
            # The attention from every parent, weighted by its probability.
            maps.append(torch.einsum("bp,bpl->bl", above.exp(), alpha.unflatten(0, (-1, count))))
            above = _descend(above, scores[:, at].unflatten(0, (-1, count)), parent)
            levels.append(above)
            state = state.unflatten(0, (-1, count))[:, parent].flatten(0, 1)
            embedded = self.embedding.weight[at].repeat(len(positions), 1)
        self.keep(maps, features)
        return levels

    def start(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """State and input of the first step, and the dropout mask of the inputs of all steps."""
        pooled = positions.mean(1)
        state = self.initial(self.dropout(pooled)).tanh()
        embedded = pooled.new_zeros(len(pooled), self.embedding.embedding_dim)
        # Variational dropout (https://arxiv.org/abs/1512.05287): one mask for a sequence.
        mask = self.dropout(pooled.new_ones(len(pooled), self.lstm.input_size))
        return state, embedded, mask

    def step(
        self, positions: Tensor, state: Tensor, embedded: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, N) of the next node, new state (B, 2 H), and attention (B, L)."""
        context, alpha = self.attend(positions, state)
        cell, hidden = state.chunk(2, dim=1)
        hidden, cell = self.lstm(torch.cat([context, embedded], dim=1) * mask, (hidden, cell))
        state = torch.cat([cell, hidden], dim=1)
        return self.vocabulary(self.dropout(state)).float(), state, alpha

    def keep(self, maps: Sequence[Tensor], features: Tensor) -> None:
        """Keep the attention (B, L) of each level as maps (B, h, w) if ``keep_attention``."""
        if self.keep_attention:
            self.attention = {
                f"level{level}": alpha.detach().unflatten(1, features.shape[2:])
                for level, alpha in enumerate(maps, start=1)
            }


def _descend(above: Tensor, scores: Tensor, parent: Tensor) -> Tensor:
    """Log-probabilities (B, C) of nodes from log-probabilities of their parents and scores.

    Args:
        above: Log-probabilities (B, P) of the parents.
        scores: Scores (B, P, C) of the nodes, given each parent.
        parent: Index (C,) of the parent of each node.
    """
    parents = torch.arange(above.shape[1], device=parent.device)
    conditional = scores.masked_fill(parent != parents[:, None], -torch.inf).log_softmax(-1)
    nodes = torch.arange(len(parent), device=parent.device)
    return above[:, parent] + conditional[:, parent, nodes]
