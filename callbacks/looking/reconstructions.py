"""What a codec makes of images, to be looked at class by class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import wandb
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torchvision.utils import make_grid, save_image

from callbacks.errors import require
from callbacks.looker import Looker
from callbacks.recording.wandb_logger import ResilientWandbLogger


class Reconstructions(Looker):
    """Draws a picture for each class after every validation and test.

    A row is an image: the original, its reconstruction, their absolute difference, and channels
    of the latent, each from its least value (black) to its greatest. The pictures are
    ``reconstructions/<split>_<class>.png`` in the run folder, the last ones there, and on W&B.

    Args:
        images_per_class: Rows; the first images of each class, of the first process's share.
        latent_channels: How many of them are drawn.
        gain: What differences are multiplied with, to be seen.
        dirpath: The run folder; the command line fills it in.
    """

    def __init__(
        self,
        images_per_class: int = 4,
        latent_channels: int = 8,
        gain: float = 5.0,
        dirpath: str = "",
    ) -> None:
        self.images_per_class, self.latent_channels = images_per_class, latent_channels
        self.gain, self.folder = gain, Path(dirpath, "reconstructions")
        self.kept: dict[int, list[Tensor]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require(pl_module, "codec", self)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.kept = {}

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.kept = {}

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if trainer.is_global_zero:
            self.keep(batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if trainer.is_global_zero:
            self.keep(batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            self.show(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.show(trainer, pl_module, "test")

    def keep(self, batch: dict[str, Tensor]) -> None:
        for image, label in zip(batch["image"], batch["label"].tolist(), strict=True):
            kept = self.kept.setdefault(label, [])
            if len(kept) < self.images_per_class:
                kept.append(image.clone())  # of a slice the whole batch would stay

    def show(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        metric: Any = pl_module.metrics[split]  # type: ignore[index]
        self.folder.mkdir(parents=True, exist_ok=True)
        pictures = []
        for label, images in sorted(self.kept.items()):
            name = metric.class_names[label]
            picture = self.picture(pl_module.codec, torch.stack(images))
            save_image(picture, self.folder / f"{split}_{name}.png")
            pictures.append(wandb.Image(picture, caption=name))
        self.kept = {}
        for logger in trainer.loggers:
            if isinstance(logger, ResilientWandbLogger):
                logger.log_media({f"{split}/reconstructions": pictures})

    @torch.no_grad()
    def picture(self, codec: Any, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to their rows of one picture (3, h, w) in [0, 1]."""
        seen = codec(images)
        error = self.gain * (images - seen.image).abs()
        columns = [images, seen.image, error.clamp(max=1)]
        if seen.latent is not None:
            columns.extend(self.channels(seen.latent.float(), images.shape[2:]))
        rows = torch.stack(columns, dim=1).flatten(0, 1)
        return make_grid(rows.cpu(), nrow=len(columns), pad_value=1.0)

    def channels(self, latent: Tensor, shape: torch.Size) -> list[Tensor]:
        """The first channels of latents (B, C, h, w) as images (B, 3, H, W)."""
        latent = latent[:, : self.latent_channels]
        low, high = latent.amin((2, 3), keepdim=True), latent.amax((2, 3), keepdim=True)
        shown = F.interpolate((latent - low) / (high - low).clamp(min=1e-8), tuple(shape))
        return [channel[:, None].expand(-1, 3, -1, -1) for channel in shown.unbind(1)]
