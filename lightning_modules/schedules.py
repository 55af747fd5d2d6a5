"""Learning-rate schedules over the steps of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """Linear warm-up from 0, then half a cosine to 0 (https://arxiv.org/abs/1608.03983).

    The rate depends on the step alone: a run that continues with more epochs follows the longer
    curve.

    Args:
        optimizer: Optimizer, whose learning rates are the peak.
        total_steps: Steps of the whole run; :class:`Classifier` fills it in.
        warmup: Share of the steps spent on the warm-up, in [0, 1); 0 is no warm-up.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.05) -> None:
        rising = round(warmup * total_steps)

        # A closure, because attributes would be saved in checkpoints and restored from them.
        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / (rising + 1)
            done = (step - rising) / max(1, total_steps - rising)
            return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

        super().__init__(optimizer, factor)


class Steps(LambdaLR):
    """Step decay: the rate is multiplied by ``factor`` at each milestone.

    Args:
        optimizer: Optimizer, whose learning rates are the initial ones.
        total_steps: Steps of the whole run; :class:`Classifier` fills it in.
        milestones: Shares of the steps, in (0, 1), after which the rate changes.
        factor: Factor of the rate at each milestone, above 0.
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
