"""Initialization of a classifier from the mean features of the classes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.errors import RunError
from callbacks.run_callback import RunCallback


class ClassMeans(RunCallback):
    """Start a linear or cosine classifier from the mean features of the classes.

    LIFT (https://arxiv.org/abs/2309.10019, section 4.3) starts from the names of the classes; its
    published code has class means for encoders without text. The weight vector of a class is the
    mean of the features of its training images, not augmented, scaled to length 1. A bias becomes
    0. A resumed run keeps its own weights.

    Args:
        classifier: Dotted name of the classifier in the module.
        images: Largest number of images of each class, at least 1, drawn by the seed of the run.
        dirpath: Run folder; set by the command line.

    Raises:
        RunError: The module has no such classifier, or no ``network`` with ``encode``.
    """

    def __init__(
        self, classifier: str = "network.model.head", images: int = 100, dirpath: str = ""
    ) -> None:
        super().__init__(dirpath)
        self.classifier = classifier
        self.images = images

    @torch.no_grad()
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.ckpt_path is not None:
            return
        try:
            classifier: Any = pl_module.get_submodule(self.classifier)
        except AttributeError as error:
            raise RunError(
                f"{type(pl_module).__name__} has no {self.classifier}: correct "
                "--trainer.callbacks.classifier."
            ) from error
        if not hasattr(pl_module.network, "encode"):
            raise RunError(
                f"{type(pl_module.network).__name__} has no features to average: remove "
                "ClassMeans from trainer.callbacks."
            )
        means, known = self.means(trainer, pl_module, *classifier.weight.shape)
        classifier.weight[known] = F.normalize(means[known], dim=1).to(classifier.weight.dtype)
        if getattr(classifier, "bias", None) is not None:
            classifier.bias.zero_()

    def means(
        self, trainer: Trainer, module: Any, classes: int, width: int
    ) -> tuple[Tensor, Tensor]:
        """Mean features (K, C) of the classes, and whether a class has images (K,)."""
        data = self.data(trainer)
        table = data.table[data.table["split"] == "train"]
        table = table.sample(frac=1, random_state=data.seed).groupby("label").head(self.images)
        rows = table.index.tolist()
        sums = torch.zeros(classes, width, device=module.device)
        counts = torch.zeros(classes, 1, device=module.device)
        module.network.eval()
        for start in range(0, len(rows), data.batch_size):
            batch = data.gather(rows[start : start + data.batch_size])
            label = batch["label"].to(module.device)
            features = module.network.encode(batch["image"].to(module.device)).float()
            sums.index_add_(0, label, features)
            counts.index_add_(0, label, torch.ones_like(features[:, :1]))
        module.network.train()
        means: Tensor = trainer.strategy.broadcast(sums / counts.clamp(min=1))
        return means, counts[:, 0] > 0
