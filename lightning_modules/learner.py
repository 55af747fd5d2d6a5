"""Training and evaluation that all modules share: optimizer, schedule and epoch hooks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from pytorch_lightning import LightningModule
from pytorch_lightning.cli import OptimizerCallable
from pytorch_lightning.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, Metric

from lightning_modules.batches import Batch
from lightning_modules.errors import ModelError
from lightning_modules.layers import Layer, layers

SPLITS = ("val", "test")


class Learner(LightningModule):
    """Base of all modules: optimizer, schedule, and evaluation of the validation and test splits.

    A subclass defines ``training_step`` and :meth:`evaluate`, and sets ``metrics`` to a metric per
    split. The scalars of the metrics are logged under ``val/`` and ``test/``.

    Args:
        optimizer: Factory of the optimizer, called with the parameters.
        lr_scheduler: Factory of the schedule, called with the optimizer and the total number of
            steps; it is advanced every step. None keeps the learning rate.
        lr_factors: Factors of the learning rate by name of a submodule; the longest matching name
            counts.
        layer_decay: Factor of the learning rate from each layer of a timm model to the one before
            it (https://arxiv.org/abs/2106.08254, section 4.1), in (0, 1]. The last layer, usually
            the classifier, learns at the full rate; 1 gives all layers the same rate. Multiplied
            by ``lr_factors``.
        decay_norm_and_bias: Whether weight decay also applies to biases, to the scales of norms
            and to what timm lists for a model, such as position embeddings and class tokens.
        batches_per_epoch: Number of training batches per epoch; the command line takes it from the
            data.

    Attributes:
        diagnoses: Whether the module predicts classes, so that its metrics hold probabilities.
    """

    diagnoses = False
    metrics: nn.ModuleDict

    def __init__(
        self,
        optimizer: OptimizerCallable,
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        lr_factors: Mapping[str, float] | None = None,
        layer_decay: float = 1.0,
        decay_norm_and_bias: bool = True,
        batches_per_epoch: int = 1,
    ) -> None:
        super().__init__()
        self.make_optimizer = optimizer
        self.make_scheduler = lr_scheduler
        if not 0 < layer_decay <= 1:
            raise ModelError(f"model.layer_decay={layer_decay} is out of range: set it in (0, 1].")
        self.lr_factors = lr_factors or {}
        self.layer_decay = layer_decay
        self.decay_norm_and_bias = decay_norm_and_bias
        self.batches_per_epoch = batches_per_epoch
        self.losses = nn.ModuleDict({split: MeanMetric() for split in SPLITS})

    def evaluate(self, batch: Batch, split: str) -> None:
        """Update the metrics and the loss of a split by a batch."""
        raise NotImplementedError

    def metric(self, split: str) -> Metric:
        """The metric of a split."""
        metric = self.metrics[split]
        assert isinstance(metric, Metric)
        return metric

    def loss(self, split: str) -> MeanMetric:
        """The mean loss of a split."""
        loss = self.losses[split]
        assert isinstance(loss, MeanMetric)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch, "test")

    def on_validation_epoch_start(self) -> None:
        self.begin("val")

    def on_test_epoch_start(self) -> None:
        self.begin("test")

    def on_validation_epoch_end(self) -> None:
        self.report("val")

    def on_test_epoch_end(self) -> None:
        self.report("test")

    def begin(self, split: str) -> None:
        """Reset the metrics of a split before its evaluation."""
        self.metric(split).reset()
        self.loss(split).reset()

    def report(self, split: str) -> None:
        """Log the scalars of a split; callbacks read more from ``metrics[split].compute()``."""
        computed: dict[str, Tensor] = self.metric(split).compute()
        computed = computed | {"loss": self.loss(split).compute()}
        self.log_dict({f"{split}/{k}": v for k, v in computed.items() if v.ndim == 0})

    @property
    def sampler(self) -> object | None:
        """The sampler of the training batches; None outside a Trainer."""
        if self._trainer is None:
            return None
        return getattr(getattr(self.trainer, "train_dataloader", None), "sampler", None)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if not (groups := self.parameter_groups()):
            raise ModelError(
                "All parameters of this model are frozen or fixed: unfreeze some of them."
            )
        optimizer = self.make_optimizer([{"params": group} for group in groups.values()])
        if isinstance(optimizer, LBFGS):
            raise ModelError(
                "LBFGS is for the gradient of all images, not of a batch: set model.optimizer to "
                "another, such as torch.optim.AdamW."
            )
        for group, (factor, decayed) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] *= factor
            if not decayed:
                group["weight_decay"] = 0.0
        if self.make_scheduler is None:
            return optimizer
        steps = self.steps
        try:
            scheduler = self.make_scheduler(optimizer, steps)
        except (TypeError, ValueError) as error:
            raise ModelError(
                "model.lr_scheduler does not accept a number of steps "
                f"({error}): set it to a schedule over the steps of the run, such as "
                "lightning_modules.schedules.WarmupCosine."
            ) from error
        schedule: LRSchedulerConfigType = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def parameter_groups(self) -> dict[Layer, list[nn.Parameter]]:
        """Trainable parameters by the factor of their learning rate and their weight decay."""
        if unknown := self.lr_factors.keys() - dict(self.named_modules()):
            raise ModelError(
                f"The model has no submodule {min(unknown)!r}: correct model.lr_factors."
            )
        known = layers(self, self.layer_decay)
        if self.layer_decay != 1 and not known:
            raise ModelError(
                "The model has no trainable layers of a timm model: leave out model.layer_decay."
            )
        groups: dict[Layer, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                matching = [m for m in self.lr_factors if name.startswith(f"{m}.")]
                factor = self.lr_factors[max(matching, key=len)] if matching else 1.0
                layer = known.get(parameter, Layer(1.0, decayed=parameter.ndim > 1))
                decayed = layer.decayed or self.decay_norm_and_bias
                groups.setdefault(Layer(factor * layer.factor, decayed), []).append(parameter)
        return groups

    @property
    def steps(self) -> int:
        """Number of optimizer steps of the whole run."""
        # Not the trainer's estimate, which loads the data: a resumed run does not yet know its
        # progress then. tests/test_progress.py compares this with the datamodule's arithmetic.
        trainer = self.trainer
        limit = trainer.limit_train_batches
        total = self.batches_per_epoch
        batches = min(total, limit) if isinstance(limit, int) else int(total * limit)
        per_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
        if per_epoch < 1:
            raise ModelError(
                f"trainer.limit_train_batches={limit} leaves none of {total} batches: set at least "
                "1 batch, or a larger share."
            )
        bounds = (per_epoch * (trainer.max_epochs or 0), trainer.max_steps)
        if not (ends := [bound for bound in bounds if bound > 0]):
            raise ModelError(
                "The schedule needs a last step: set trainer.max_epochs or trainer.max_steps."
            )
        return min(ends)
