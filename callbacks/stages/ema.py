"""Moving average of the weights, which is validated and saved instead of the weights."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA(WeightAveraging):
    """Exponential moving average of the weights, updated after each optimizer step.

    The average is what is validated, what ``state_dict`` of a checkpoint holds, and therefore what
    is evaluated, exported and loaded. A resumed run continues from the weights themselves. Running
    statistics of batch norm are averaged alike.

    Lightning's ``EMAWeightAveraging`` is the same average, except that it stays on the CPU when the
    model is moved to a GPU, and warns whenever a run is evaluated.

    Args:
        decay: Weight of the old average in each update, in [0, 1). The average is about that of the
            last 1 / (1 - decay) steps, which should be a small share of all.
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is not None:  # else the run is used, and its weights are the average
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
