"""What SPMix mixes, to look at."""

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
from callbacks.recording.wandb_logger import ResilientWandbLogger

TILE, GAP, LINE = 168, 8, 18  # pixels: a picture, the space around it, a line of text
HEADER = ("anchor", "its map", "partner", "its map", "ratio: 1 is the anchor", "mixed")


class MixingPicture(Looker):
    """Draws some pairs, how they are mixed and what comes of it: ``mixing/epoch<N>.png``.

    A row shows a pair of the epoch's first batch as the network sees it: anchor, partner, the maps
    of their lesions, the ratio of every patch, and the mix. Tokens cannot be looked at: the mix
    shown is of pixels, each by the ratio of its patch.

    The picture is in the run folder and on W&B. It takes nothing from the training's random
    numbers.

    Args:
        every_n_epochs: An epoch's start is drawn if it can be divided by this; epoch 0 always is.
        pairs: How many to draw, of as many classes as possible.
        dirpath: The run folder; the command line fills it in.
    """

    def __init__(self, every_n_epochs: int = 50, pairs: int = 6, dirpath: str = "") -> None:
        if every_n_epochs < 1:
            raise RunError("MixingPicture draws every_n_epochs, 1 or more.")
        self.every_n_epochs, self.pairs = every_n_epochs, pairs
        self.folder = Path(dirpath, "mixing")
        self.path: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            require(pl_module, "mixtures", self)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        due = batch_idx == 0 and trainer.current_epoch % self.every_n_epochs == 0
        if not due or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        module: Any = pl_module
        device = pl_module.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            mixtures = {name: value.cpu() for name, value in module.mixtures(batch).items()}
        names = trainer.datamodule.class_names  # type: ignore[attr-defined]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / f"epoch{trainer.current_epoch}.png"
        draw(mixtures, names, self.pairs).save(self.path)
        for logger in trainer.loggers:
            if isinstance(logger, ResilientWandbLogger):
                logger.log_media({"mixing": wandb.Image(str(self.path))}, trainer.global_step)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.path is not None:
            print(f"What was mixed: {self.path}")


def draw(mixtures: dict[str, Tensor], names: Sequence[str], pairs: int) -> Image.Image:
    """A row for each of ``pairs`` mixtures, of which ``mixtures`` holds n.

    Args:
        mixtures: ``image`` (2n, 3, H, W) in [0, 1] and ``label`` (2n,), anchors and partners in
            turns; ``map`` (2n, 1, H, W), saliency or mask, if it counts; ``ratio`` (n, h, w).
        names: Of the classes.
        pairs: How many rows, of as many classes of anchors as possible.
    """
    rows = _chosen(mixtures, pairs)
    step = TILE + GAP
    size = (len(HEADER) * step + GAP, LINE + GAP + len(rows) * (step + LINE))
    page = Image.new("RGB", size, "white")
    write, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for column, title in enumerate(HEADER):
        write.text((GAP + column * step, GAP // 2), title, "black", font)
    for row, i in enumerate(rows):
        top = LINE + GAP + row * (step + LINE)
        for column, (picture, text) in enumerate(_tiles(mixtures, names, i)):
            left = GAP + column * step
            page.paste(picture, (left, top))
            write.text((left, top + TILE + 1), text, "black", font)
    return page


def _chosen(mixtures: dict[str, Tensor], pairs: int) -> list[int]:
    """The first of each class before the second, and of these mixed pairs before unmixed ones."""
    anchors = mixtures["label"][::2].tolist()
    unmixed = (mixtures["ratio"] == 1).flatten(1).all(1).tolist()
    rank = [anchors[:i].count(label) for i, label in enumerate(anchors)]
    order = sorted(range(len(anchors)), key=lambda i: (rank[i], unmixed[i], i))
    return order[:pairs]


def _tiles(
    mixtures: dict[str, Tensor], names: Sequence[str], i: int
) -> list[tuple[Image.Image, str]]:
    """The pictures of pair ``i`` with what is written below them."""
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
    colours = cv2.applyColorMap(gray, cv2.COLORMAP_VIRIDIS)[..., ::-1]  # from BGR
    picture = Image.fromarray(np.ascontiguousarray(colours))
    return picture.resize((TILE, TILE), Image.Resampling.NEAREST)
