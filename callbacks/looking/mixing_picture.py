"""Figures of mixed pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import wandb
from PIL import Image, ImageDraw, ImageFont
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.errors import RunError, require
from callbacks.looker import Looker

TILE, GAP, LINE_HEIGHT = 168, 8, 18  # in pixels: side of a tile, space around it, line of text
HEADER = ("anchor", "its map", "partner", "its map", "ratio: 1 is the anchor", "mixed")


class MixingPicture(Looker):
    """Draw some pairs and how they are mixed: ``mixing/epoch<N>.png`` in the run folder.

    A row shows a pair of the epoch's first batch after augmentation: anchor, partner, the saliency
    maps or masks of both, the ratio of every patch, and the mix. A mix of tokens is shown as a mix
    of pixels, each with the ratio of its patch. The figure is ``mixing`` on W&B.

    The random numbers of training are left unchanged.

    Args:
        every_n_epochs: Interval between figures in epochs, at least 1, from epoch 0 on.
        pairs: Number of pairs to draw, from as many classes as possible.
        dirpath: Run folder; set by the command line.
    """

    def __init__(self, every_n_epochs: int = 50, pairs: int = 6, dirpath: str = "") -> None:
        if every_n_epochs < 1:
            raise RunError(
                f"MixingPicture got every_n_epochs={every_n_epochs}: set it to 1 or more."
            )
        super().__init__(dirpath)
        self.every_n_epochs = every_n_epochs
        self.pairs = pairs
        self.path: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            require(pl_module, "mixtures", self)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        due = batch_idx == 0 and trainer.current_epoch % self.every_n_epochs == 0
        if not due or not trainer.is_global_zero or self.is_trial(trainer):
            return
        module: Any = pl_module
        device = pl_module.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            mixtures = {name: value.cpu() for name, value in module.mixtures(batch).items()}
        names = self.data(trainer).class_names
        self.path = self.folder / "mixing" / f"epoch{trainer.current_epoch}.png"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draw(mixtures, names, self.pairs).save(self.path)
        for dashboard in self.dashboards(trainer):
            dashboard.log_media({"mixing": wandb.Image(str(self.path))}, trainer.global_step)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.path is not None:
            print(f"Mixed pairs: {self.path}")


def draw(mixtures: dict[str, Tensor], names: Sequence[str], pairs: int) -> Image.Image:
    """Draw mixed pairs, one a row.

    Args:
        mixtures: ``image`` (2n, 3, H, W) in [0, 1] and ``label`` (2n,), anchors in even rows and
            partners in odd rows; ``map`` (2n, 1, H, W), saliency or mask, if the mix uses it;
            ``ratio`` (n, h, w), the weight of the anchor in each patch.
        names: Class names.
        pairs: Number of pairs to draw, with anchors of as many classes as possible.
    """
    rows = _chosen(mixtures, pairs)
    step = TILE + GAP
    size = (len(HEADER) * step + GAP, LINE_HEIGHT + GAP + len(rows) * (step + LINE_HEIGHT))
    page = Image.new("RGB", size, "white")
    write, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for column, title in enumerate(HEADER):
        write.text((GAP + column * step, GAP // 2), title, "black", font)
    for row, i in enumerate(rows):
        top = LINE_HEIGHT + GAP + row * (step + LINE_HEIGHT)
        for column, (tile, text) in enumerate(_tiles(mixtures, names, i)):
            left = GAP + column * step
            page.paste(tile, (left, top))
            write.text((left, top + TILE + 1), text, "black", font)
    return page


def _chosen(mixtures: dict[str, Tensor], pairs: int) -> list[int]:
    """Choose the first pair of each class, then the second, mixed pairs before unmixed ones."""
    anchors = mixtures["label"][::2].tolist()
    unmixed = (mixtures["ratio"] == 1).flatten(1).all(1).tolist()
    rank = [anchors[:i].count(label) for i, label in enumerate(anchors)]
    order = sorted(range(len(anchors)), key=lambda i: (rank[i], unmixed[i], i))
    return order[:pairs]


def _tiles(
    mixtures: dict[str, Tensor], names: Sequence[str], i: int
) -> list[tuple[Image.Image, str]]:
    """The tiles of a pair, each with the text below it."""
    anchor, partner = mixtures["image"][2 * i : 2 * i + 2]
    first, second = (names[label] for label in mixtures["label"][2 * i : 2 * i + 2].tolist())
    ratio = mixtures["ratio"][i]
    patch = [side // cells for side, cells in zip(anchor.shape[1:], ratio.shape, strict=True)]
    pixels = torch.kron(ratio, torch.ones(patch[0], patch[1]))
    low, mean, high = (f"{x:.2f}" for x in (ratio.min(), ratio.mean(), ratio.max()))
    blank = torch.ones_like(anchor[:1])
    maps = mixtures["map"][2 * i : 2 * i + 2] if "map" in mixtures else [blank, blank]
    unused = "" if "map" in mixtures else "not used"
    mixed = pixels * anchor + (1 - pixels) * partner
    return [
        (_photo(anchor), first),
        (_photo(maps[0].expand(3, -1, -1)), unused),
        (_photo(partner), second),
        (_photo(maps[1].expand(3, -1, -1)), unused),
        (_heat(ratio), f"{low} to {high}, mean {mean}"),
        (_photo(mixed), f"labelled {first}" if (ratio < 1).any() else f"{first}, not mixed"),
    ]


def _photo(image: Tensor) -> Image.Image:
    pixels = image.mul(255).round().clamp(0, 255).byte().permute(1, 2, 0)
    return Image.fromarray(pixels.contiguous().numpy()).resize((TILE, TILE))


def _heat(ratio: Tensor) -> Image.Image:
    gray = ratio.mul(255).round().byte().numpy()
    colors = cv2.applyColorMap(gray, cv2.COLORMAP_VIRIDIS)[..., ::-1]  # from BGR
    tile = Image.fromarray(np.ascontiguousarray(colors))
    return tile.resize((TILE, TILE), Image.Resampling.NEAREST)
