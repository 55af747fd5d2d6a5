"""Learning rates over the steps of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """Linear warm-up from 0, then half a cosine to 0 (https://arxiv.org/abs/1608.03983).

    A function of the step alone: a training that is given more epochs follows the longer curve.

    Args:
        optimizer: Whose learning rates are the peak.
        total_steps: Steps of the whole training; :class:`Classifier` fills it in.
        warmup: Share of the training spent on the warm-up, in [0, 1).
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.05) -> None:
        rising = round(warmup * total_steps)

        # A closure, because attributes would go into checkpoints and come back from them.
        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / (rising + 1)
            done = (step - rising) / max(1, total_steps - rising)
            return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

        super().__init__(optimizer, factor)


class Steps(LambdaLR):
    """A factor at each milestone.

    Args:
        optimizer: Whose learning rates are those of the beginning.
        total_steps: Steps of the whole training; :class:`Classifier` fills it in.
        milestones: Shares of the training, in (0, 1).
        factor: What the rate is multiplied with at each.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        milestones: Sequence[float] = (0.5, 0.75),
        factor: float = 0.1,
    ) -> None:
        ends = [round(share * total_steps) for share in milestones]
        super().__init__(optimizer, lambda step: factor ** sum(step >= end for end in ends))
