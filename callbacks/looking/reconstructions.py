"""Figures of reconstructed images, class by class."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import wandb
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torchvision.utils import make_grid, save_image

from callbacks.errors import require
from callbacks.looker import Looker


class Reconstructions(Looker):
    """Draw reconstructions of each class after every validation and test.

    A row shows an image: the original, its reconstruction, their absolute difference, and channels
    of the latent, each scaled from its minimum (black) to its maximum (white). The figures are the
    latest ``reconstructions/<split>_<class>.png`` in the run folder, and ``val/reconstructions``
    and ``test/reconstructions`` on W&B.

    Args:
        images_per_class: Number of rows, at least 1: the first images of each class on the first
            process.
        latent_channels: Number of latent channels to draw, at least 0.
        gain: Factor that makes the differences visible.
        dirpath: Run folder; set by the command line.
    """

    def __init__(
        self,
        images_per_class: int = 4,
        latent_channels: int = 8,
        gain: float = 5.0,
        dirpath: str = "",
    ) -> None:
        super().__init__(dirpath)
        self.images_per_class = images_per_class
        self.latent_channels = latent_channels
        self.gain = gain
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
        """Keep the first images of each class in a batch."""
        for image, label in zip(batch["image"], batch["label"].tolist(), strict=True):
            kept = self.kept.setdefault(label, [])
            if len(kept) < self.images_per_class:
                kept.append(image.clone())  # a slice would keep the whole batch in memory

    def show(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        """Draw, save and upload the kept images of a split."""
        names = self.metric(pl_module, split).class_names
        folder = self.folder / "reconstructions"
        folder.mkdir(parents=True, exist_ok=True)
        figures = []
        for label, images in sorted(self.kept.items()):
            figure = self.draw(pl_module.codec, torch.stack(images))
            save_image(figure, folder / f"{split}_{names[label]}.png")
            figures.append(wandb.Image(figure, caption=names[label]))
        self.kept = {}
        for dashboard in self.dashboards(trainer):
            dashboard.log_media({f"{split}/reconstructions": figures})

    @torch.no_grad()
    def draw(self, codec: Any, images: Tensor) -> Tensor:
        """Draw images (B, 3, H, W) as the rows of one figure (3, h, w) in [0, 1]."""
        reconstruction = codec(images)
        error = self.gain * (images - reconstruction.image).abs()
        columns = [images, reconstruction.image, error.clamp(max=1)]
        if reconstruction.latent is not None:
            columns.extend(self.channels(reconstruction.latent.float(), images.shape[2:]))
        rows = torch.stack(columns, dim=1).flatten(0, 1)
        return make_grid(rows.cpu(), nrow=len(columns), pad_value=1.0)

    def channels(self, latent: Tensor, shape: torch.Size) -> list[Tensor]:
        """Draw the first channels of latents (B, C, h, w), each as images (B, 3, H, W)."""
        latent = latent[:, : self.latent_channels]
        low, high = latent.amin((2, 3), keepdim=True), latent.amax((2, 3), keepdim=True)
        shown = F.interpolate((latent - low) / (high - low).clamp(min=1e-8), tuple(shape))
        return [channel[:, None].expand(-1, 3, -1, -1) for channel in shown.unbind(1)]
