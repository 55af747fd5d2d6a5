"""Compression as a task, and classification of what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_modules.classifier import Classifier
from lightning_modules.codecs import Codec, Reconstruction
from lightning_modules.errors import ModelError
from lightning_modules.fidelity import CompressedMetrics, Fidelity
from lightning_modules.losses.rate_distortion import RateDistortionLoss


class WithCodec(Classifier):
    """What has a ``codec``, which computes in float32 and must be made ready to count bits."""

    def on_train_start(self) -> None:
        self.require_float32()

    def on_predict_start(self) -> None:
        self.require_float32()

    def require_float32(self) -> None:
        """Refuses parameters in another precision."""
        if any(p.dtype != torch.float32 for p in self.parameters()):
            raise ModelError(
                "Codecs compute in float32, for less would show in what they are measured by: set "
                "trainer.precision to 32-true or bf16-mixed, which keep parameters in float32."
            )

    def begin(self, split: str) -> None:
        super().begin(split)
        self.require_float32()
        codec: Any = self.codec
        # With weights that stay, streams must stay readable: what counts them stays as well.
        if self.trainer.state.fn == "fit" and any(p.requires_grad for p in codec.parameters()):
            codec.update()


class Compression(WithCodec):
    """Trains a codec to reconstruct; evaluated and optimised as classifiers are.

    Logs the metrics of :class:`~lightning_modules.fidelity.Fidelity` in the place of a diagnosis.

    Args:
        codec: What is trained.
        criterion: Images and reconstruction to a scalar.
        **kwargs: As for :class:`Classifier`.
    """

    mixes = False

    def __init__(
        self,
        codec: Codec,
        criterion: RateDistortionLoss,
        class_names: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(codec, criterion, class_names=class_names, **kwargs)
        self.metrics = nn.ModuleDict({split: Fidelity(class_names) for split in self.metrics})

    @property
    def codec(self) -> Codec:
        return self.network  # type: ignore[return-value]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = self.criterion(batch["image"], self.codec(batch["image"]))
        self.log("train/loss", loss)
        return loss

    def evaluate(self, batch: dict[str, Tensor], split: str) -> None:
        seen = self.codec(batch["image"])
        self.metrics[split].update(batch, seen)
        self.losses[split].update(self.criterion(batch["image"], seen), len(batch["image"]))

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        raise ModelError("A codec predicts no classes: predict with a run that classifies.")


class CompressedClassifier(WithCodec):
    """Trains a network on what a codec leaves of images.

    What is trained follows from what the callbacks ``Freeze`` and ``StartFrom`` are told:

    - codec and network frozen: how a classifier fares on reconstructions. Nothing is trained, one
      step is enough, and there must be one process;
    - codec frozen: a classifier of reconstructions;
    - nothing frozen: both jointly, by cross-entropy alone or with ``reconstruction``. Several
      processes need all that is not frozen to be used: with ``reconstruction``, an entropy model.

    Args:
        *args: As for :class:`Classifier`.
        codec: Images to reconstructions.
        reconstruction: Adds rate and distortion to the loss; for joint training.
        **kwargs: As for :class:`Classifier`.
    """

    def __init__(
        self,
        *args: Any,
        codec: Codec,
        reconstruction: RateDistortionLoss | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.codec, self.reconstruction = codec, reconstruction
        names = self.metrics["val"].class_names
        self.metrics = nn.ModuleDict({split: CompressedMetrics(names) for split in self.metrics})

    def setup(self, stage: str) -> None:
        if stage != "fit" or any(p.requires_grad for p in self.parameters()):
            return
        if self.trainer.world_size > 1:
            raise ModelError(
                "Nothing is trained here, for which one process is enough: set trainer.devices and "
                "trainer.num_nodes to 1."
            )
        if self.trainer.precision == "16-mixed":
            raise ModelError(
                "Nothing is trained here, so there are no gradients to scale: set "
                "trainer.precision to 32-true or bf16-mixed."
            )

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.codec.image(images))

    def classify(self, seen: Reconstruction) -> Tensor:
        """Logits (B, K)."""
        return self.network(seen.image)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        if self.reconstruction is None:
            loss = super().training_step(batch, batch_idx)
            return loss if loss.requires_grad else loss.requires_grad_()  # all may be frozen
        batch = self.mix(batch)
        seen = self.codec(batch["image"])
        classification = self.criterion(self.classify(seen), batch["label"])
        reconstruction = self.reconstruction(batch["image"], seen)
        loss = classification + reconstruction
        self.log_dict({"train/loss": loss, "train/reconstruction": reconstruction})
        return loss

    def evaluate(self, batch: dict[str, Tensor], split: str) -> None:
        seen = self.codec(batch["image"])
        logits = self.classify(seen)
        self.metrics[split].update(logits, batch, seen)
        self.losses[split].update(F.cross_entropy(logits, batch["label"], reduction="none"))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if any(p.requires_grad for p in self.parameters()):
            return super().configure_optimizers()
        # Without an optimizer a run would not come to its validation and its checkpoint.
        return torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.0)


class LatentClassifier(CompressedClassifier):
    """Trains a network on the latent of a codec, which is decoded only to be looked at.

    Several processes need what is not used, the decoder, to be frozen.

    Args:
        *args: As for :class:`CompressedClassifier`; ``network`` takes the latent (B, C, h, w).
        **kwargs: Likewise.
    """

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            latent = self.codec.encode(images.float())
        return self.network(latent)

    def classify(self, seen: Reconstruction) -> Tensor:
        if seen.latent is None:
            raise ModelError("This codec has no latent to classify: take an autoencoder.")
        return self.network(seen.latent)
