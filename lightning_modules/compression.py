"""Modules with a codec: compression, and classification of compressed images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_modules.batches import Batch
from lightning_modules.classifier import Classifier
from lightning_modules.codecs import Codec, Reconstruction
from lightning_modules.errors import ModelError
from lightning_modules.fidelity import CompressedMetrics, Fidelity
from lightning_modules.learner import SPLITS, Learner
from lightning_modules.losses.rate_distortion import RateDistortionLoss


class WithCodec(Learner):
    """Base of modules with a codec: requires float32 and refreshes the entropy coder."""

    codec: Codec

    def on_train_start(self) -> None:
        self.require_float32()

    def on_predict_start(self) -> None:
        self.require_float32()

    def require_float32(self) -> None:
        """Raise an error if parameters have another precision."""
        if any(p.dtype != torch.float32 for p in self.parameters()):
            raise ModelError(
                "Codecs compute in float32, because rounding would change their fidelity: set "
                "trainer.precision to 32-true or bf16-mixed, which keep parameters in float32."
            )

    def begin(self, split: str) -> None:
        super().begin(split)
        self.require_float32()
        trained = any(p.requires_grad for p in self.codec.parameters())
        # Never for fixed weights, whose existing streams must stay readable.
        if self.trainer.state.fn == "fit" and trained:
            self.codec.update()


class Compression(WithCodec):
    """Train a codec to reconstruct images.

    Logs ``train/loss`` and the metrics of :class:`~lightning_modules.fidelity.Fidelity`.

    Args:
        codec: Codec to train.
        criterion: Loss of images and their reconstruction.
        class_names: Names of the K classes; the command line takes them from the data.
        **kwargs: As for :class:`~lightning_modules.learner.Learner`.
    """

    def __init__(
        self,
        codec: Codec,
        criterion: RateDistortionLoss,
        class_names: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.network = codec  # the name in checkpoints, from which StartFrom loads codecs
        self.criterion = criterion
        self.metrics = nn.ModuleDict({split: Fidelity(class_names) for split in SPLITS})

    @property
    def codec(self) -> Codec:  # type: ignore[override]
        return self.network

    def forward(self, images: Tensor) -> Reconstruction:
        return self.codec(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.criterion(batch["image"], self.codec(batch["image"]))
        self.log("train/loss", loss)
        return loss

    def evaluate(self, batch: Batch, split: str) -> None:
        reconstruction = self.codec(batch["image"])
        self.metric(split).update(batch, reconstruction)
        loss = self.criterion(batch["image"], reconstruction)
        self.loss(split).update(loss, len(batch["image"]))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        raise ModelError(
            "This run trained a codec, which does not predict classes: use a run of a classifier."
        )


class CompressedClassifier(WithCodec, Classifier):
    """Train a network on the reconstructions of a codec.

    The callbacks ``Freeze`` and ``StartFrom`` determine the parts that are trained:

    - codec and network frozen: evaluates an existing classifier on reconstructions. One step and
      one process are enough;
    - codec frozen: trains a classifier of reconstructions;
    - nothing frozen: trains both jointly, by the criterion alone or with ``reconstruction``. With
      several processes, all parameters that are not frozen must be used; with an entropy model
      this requires ``reconstruction``.

    Args:
        *args: As for :class:`~lightning_modules.Classifier`.
        codec: Codec that reconstructs the images.
        reconstruction: Rate-distortion loss that is added in joint training; None is none.
        **kwargs: As for :class:`~lightning_modules.Classifier`.
    """

    def __init__(
        self,
        *args: Any,
        codec: Codec,
        reconstruction: RateDistortionLoss | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.codec = codec
        self.reconstruction = reconstruction
        names = self.class_names
        self.metrics = nn.ModuleDict(
            {split: CompressedMetrics(names, self.shots) for split in SPLITS}
        )

    def setup(self, stage: str) -> None:
        if stage != "fit" or any(p.requires_grad for p in self.parameters()):
            return
        if self.trainer.world_size > 1:
            raise ModelError(
                "Nothing is trained in this run, so one process is enough: set trainer.devices and "
                "trainer.num_nodes to 1."
            )
        if self.trainer.precision == "16-mixed":
            raise ModelError(
                "Nothing is trained in this run, so there are no gradients to scale: set "
                "trainer.precision to 32-true or bf16-mixed."
            )

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.codec.image(images))

    def classify(self, reconstruction: Reconstruction) -> Tensor:
        """Logits (B, K) of the images of a reconstruction."""
        return self.network(reconstruction.image)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.reconstruction is None:
            loss = super().training_step(batch, batch_idx)
            return (
                loss if loss.requires_grad else loss.requires_grad_()
            )  # without a gradient if all is frozen
        batch = self.mix(batch)
        reconstruction = self.codec(batch["image"])
        classification = self.criterion(self.classify(reconstruction), batch["label"])
        rate_distortion = self.reconstruction(batch["image"], reconstruction)
        loss = classification + rate_distortion
        self.log_dict({"train/loss": loss, "train/reconstruction": rate_distortion})
        return loss

    def evaluate(self, batch: Batch, split: str) -> None:
        reconstruction = self.codec(batch["image"])
        logits = self.classify(reconstruction)
        self.metric(split).update(logits, batch, reconstruction)
        self.loss(split).update(F.cross_entropy(logits, batch["label"], reduction="none"))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if any(p.requires_grad for p in self.parameters()):
            return super().configure_optimizers()
        # Lightning needs an optimizer to reach the validation and its checkpoint.
        return torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.0)


class LatentClassifier(CompressedClassifier):
    """Train a network on the latents of a codec; reconstructions are only evaluated.

    With several processes, freeze the decoder, which is not used in training.

    Args:
        *args: As for :class:`CompressedClassifier`; the input of ``network`` are latents
            (B, C, h, w).
        **kwargs: As for :class:`CompressedClassifier`.
    """

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            latent = self.codec.encode(images.float())
        return self.network(latent)

    def classify(self, reconstruction: Reconstruction) -> Tensor:
        if reconstruction.latent is None:
            raise ModelError(
                "This codec has no latent to classify: set model.codec to an autoencoder."
            )
        return self.network(reconstruction.latent)
