"""Learning rates over the steps of a training."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """Linear warm-up from 0, then half a cosine to 0 (https://arxiv.org/abs/1608.03983).

    A function of the step alone, so a training that is given more epochs follows the longer curve.

    Args:
        optimizer: Whose learning rates are the peak.
        total_steps: Steps of the whole training; :class:`Classifier` fills it in.
        warmup: Share of the training spent on the warm-up, in [0, 1).
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.05) -> None:
        self.total_steps, self.warmup_steps = total_steps, round(warmup * total_steps)
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
