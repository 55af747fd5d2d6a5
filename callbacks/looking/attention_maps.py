"""Attention maps of the same images of each class, drawn and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
import wandb
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.console import decimals, in_words
from callbacks.looker import Looker
from callbacks.looking.heatmap import COMPRESSION, draw_heatmap
from callbacks.looking.network_attention import attention_maps, inside
from callbacks.run_callback import Data


class AttentionMaps(Looker):
    """Draw the :func:`attention_maps` of a network over images, and measure them.

    The images are the first lesions of each class, one image each: of the validation split at the
    end of every nth epoch, of the test split after a test, when the most confident mistakes are
    drawn, too. The figures are the latest ``attention/<split>_<class>_<image>.png`` in the run
    folder, mistakes ``attention/test_mistake<n>_<image>.png``, and ``val/attention`` and
    ``test/attention`` on W&B.

    If the data have masks, these metrics are logged, for each class and as means over the classes
    (after a test with the prefix ``test/``):

    - ``val/pointing``, ``val/pointing_<class>``: share of the maps whose maximum is in the
      lesion;
    - ``val/energy``, ``val/energy_<class>``: share of the map that is in the lesion;
    - ``val/lesion_area``: share of the image that is lesion, which is the energy of a uniform map.

    Only the first process draws; the others wait for it at their next step. Training is unaffected:
    random numbers, gradients and statistics stay the same.

    Args:
        every_n_epochs: Interval between validation figures in epochs, at least 0; 0 draws none.
        images_per_class: Number of images per class to draw, at least 0.
        scored_per_class: Number of images per class to measure, including those drawn.
        mistakes: Number of mistakes to draw.
        dirpath: Run folder; set by the command line.
    """

    def __init__(
        self,
        every_n_epochs: int = 10,
        images_per_class: int = 4,
        scored_per_class: int = 20,
        mistakes: int = 8,
        dirpath: str = "",
    ) -> None:
        super().__init__(dirpath)
        self.every_n_epochs = every_n_epochs
        self.images_per_class = images_per_class
        self.scored_per_class = scored_per_class
        self.mistakes = mistakes
        self.output = self.folder / "attention"

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        due = self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if fitting and due:
            self.show(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.show(trainer, pl_module, "test")

    def show(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        """Draw, measure and record the images of a split."""
        if not trainer.is_global_zero or self.is_trial(trainer):
            return
        data = self.data(trainer)
        chosen = first_lesions(data.table[data.table["split"] == split], self.scored_per_class)
        if chosen.empty:
            return
        mapped = map_images(pl_module, data, chosen.index.tolist())
        drawn = chosen.groupby("label").head(self.images_per_class)
        names = {
            i: f"{split}_{dx}" for i, dx in zip(drawn.index.tolist(), drawn["dx"], strict=True)
        }
        figures = self.draw(mapped, data, names)
        if split == "test":
            figures += self.draw_mistakes(pl_module, data)
        values = measured(mapped, chosen["dx"]) | {"epoch": trainer.current_epoch}
        self.record(trainer, split, values, figures)

    def draw_mistakes(self, pl_module: LightningModule, data: Data) -> list[Path]:
        """Draw the most confident mistakes in the test split."""
        mistakes = self.most_confident_mistakes(pl_module)
        if not mistakes:
            return []
        for earlier in self.output.glob("test_mistake*.png"):
            earlier.unlink()  # of another checkpoint
        names = {i: f"test_mistake{n:02}" for n, i in enumerate(mistakes, start=1)}
        return self.draw(map_images(pl_module, data, mistakes), data, names)

    def most_confident_mistakes(self, pl_module: LightningModule) -> list[int]:
        """Rows of the misclassified test images, the most confident first."""
        computed = self.metric(pl_module, "test").compute()  # cached, and of all processes
        confidence, decided = computed["probability"].max(1)
        wrong = (decided != computed["label"]).nonzero().flatten()
        order = wrong[confidence[wrong].argsort(descending=True, stable=True)]
        indices: list[int] = computed["index"][order][: self.mistakes].tolist()
        return indices

    def draw(self, mapped: MappedImages, data: Data, names: Mapping[int, str]) -> list[Path]:
        """Draw images and return the files of the figures.

        Args:
            mapped: Images with their attention maps.
            data: Datamodule of the images.
            names: Prefix of the file name for each row to draw.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        figures = []
        for i, name in names.items():
            at, row = mapped.rows.index(i), data.table.loc[i]
            confidence, decided = mapped.probability[at].max(0)
            caption = f"{row['dx']}, taken for {data.class_names[int(decided)]} ({confidence:.0%})"
            maps = {kind: heat[at] for kind, heat in mapped.maps.items()}
            mask = None if mapped.mask is None else mapped.mask[at]
            figure = draw_heatmap(mapped.image[at], maps, f"{row['image_id']}: {caption}", mask)
            flat = str(row["image_id"]).replace("/", "_")  # an id may be a path, as adopt writes it
            file = self.output / f"{name}_{flat}.png"
            figure.save(file, compress_level=COMPRESSION)
            figures.append(file)
        return figures

    def record(
        self, trainer: Trainer, split: str, values: dict[str, float], figures: list[Path]
    ) -> None:
        """Log values and figures, and print a summary after a test."""
        keys = {key if key == "epoch" else f"{split}/{key}": x for key, x in values.items()}
        for logger in trainer.loggers:
            logger.log_metrics(keys, step=max(trainer.global_step - 1, 0))
        for dashboard in self.dashboards(trainer):
            dashboard.log_media({f"{split}/attention": [wandb.Image(str(f)) for f in figures]})
        if split == "test":
            means = {key: x for key, x in values.items() if key in ("pointing", "energy")}
            area = decimals(values.get("lesion_area", float("nan")))
            scores = f"{in_words(means)} (lesions: {area} of the images); " if means else ""
            print(f"Attention maps: {scores}{len(figures)} figures in {self.output}.")


class MappedImages(NamedTuple):
    """Images with the probabilities and the attention maps of a network.

    Args:
        rows: Rows of the N images in the table of the data.
        image: Images (N, 3, H, W) in [0, 1].
        mask: Masks of the lesions (N, H, W); None if the data have none.
        probability: Class probabilities (N, K).
        maps: Attention maps (N, h, w) by name.
    """

    rows: list[int]
    image: Tensor
    mask: Tensor | None
    probability: Tensor
    maps: dict[str, Tensor]


def map_images(
    model: LightningModule, data: Data, index: Sequence[int], batch_size: int = 32
) -> MappedImages:
    """Compute the attention maps of the images in some rows of the table of the data."""
    batch = data.gather(list(index))
    logits, maps = [], []
    for images in batch["image"].split(batch_size):
        z, m = attention_maps(model, images.to(model.device))
        logits.append(z.float().cpu())
        maps.append({name: heat.float().cpu() for name, heat in m.items()})
    joined = {name: torch.cat([m[name] for m in maps]) for name in maps[0]}
    probability = torch.cat(logits).softmax(1)
    mask = batch["mask"].squeeze(1) if "mask" in batch else None
    return MappedImages(list(index), batch["image"], mask, probability, joined)


def first_lesions(images: pd.DataFrame, number: int) -> pd.DataFrame:
    """The first lesions of each class in a table of images, one image each."""
    return images.drop_duplicates("lesion_id").groupby("label").head(number)


def measured(mapped: MappedImages, dx: pd.Series[str]) -> dict[str, float]:
    """Pointing and energy of each class, and their means over the classes."""
    if mapped.mask is None:
        return {}
    pointing, energy = inside(list(mapped.maps.values())[-1], mapped.mask)
    table = pd.DataFrame({"pointing": pointing.numpy(), "energy": energy.numpy()})
    means = table.groupby(dx.to_numpy(), sort=False).mean()
    per_class = {f"{name}_{c}": x for name in means for c, x in means[name].dropna().items()}
    overall = {str(name): float(x) for name, x in means.mean().dropna().items()}
    return per_class | overall | {"lesion_area": float(mapped.mask.mean())}
