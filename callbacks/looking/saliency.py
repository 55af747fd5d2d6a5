"""What the network looked at, for the same images of each class every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
import wandb
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.console import decimals, in_words
from callbacks.looker import Looker
from callbacks.looking.attention_maps import attention_maps, inside
from callbacks.looking.overlay import picture
from callbacks.recording.wandb_logger import ResilientWandbLogger


class Saliency(Looker):
    """Draws the :func:`attention_maps` of a network over images, and measures them.

    Of each class these are the first lesions of the split, one image each, at the end of every nth
    epoch those of the validation and after a test those of the test, with the test's most
    confident mistakes besides. The pictures are ``saliency/<split>_<class>_<image>.png`` in the
    run folder, the last ones there, and on W&B; ``test_mistake<n>_<image>.png`` are the mistakes.

    Where the data have masks it logs, of each class and as the mean over the classes,

    - ``val/pointing_<class>``: share of the maps whose highest point is in the lesion;
    - ``val/energy_<class>``: share of the map that is in the lesion;
    - ``val/lesion_area``: share of the images that is lesion, which is the energy of a map that
      is the same everywhere.

    Only the first process works; the others wait for it at their next step. Training is not
    touched: neither its random numbers, nor gradients, nor statistics.

    Args:
        every_n_epochs: Of the validation; 0 is never.
        images_per_class: How many are drawn.
        scored_per_class: How many are measured, those that are drawn among them.
        mistakes: How many mistakes are drawn.
        dirpath: The run folder; the command line fills it in.
    """

    def __init__(
        self,
        every_n_epochs: int = 10,
        images_per_class: int = 4,
        scored_per_class: int = 20,
        mistakes: int = 8,
        dirpath: str = "",
    ) -> None:
        self.every_n_epochs, self.images_per_class = every_n_epochs, images_per_class
        self.scored_per_class, self.mistakes = scored_per_class, mistakes
        self.folder = Path(dirpath, "saliency")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        due = self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if fitting and due:
            self.show(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.show(trainer, pl_module, "test")

    def show(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        chosen = first_lesions(data.table[data.table["split"] == split], self.scored_per_class)
        if chosen.empty:
            return
        seen = look(pl_module, data, chosen.index.tolist())
        drawn = chosen.groupby("label").head(self.images_per_class)
        names = {
            i: f"{split}_{dx}" for i, dx in zip(drawn.index.tolist(), drawn["dx"], strict=True)
        }
        pictures = self.draw(seen, data.table, data.class_names, names)
        wrong = self.most_wrong(pl_module) if split == "test" else []
        for earlier in self.folder.glob(f"{split}_mistake*.png") if wrong else ():
            earlier.unlink()  # of another checkpoint
        if wrong:
            seen_wrong = look(pl_module, data, wrong)
            names = {i: f"{split}_mistake{n:02}" for n, i in enumerate(wrong, start=1)}
            pictures += self.draw(seen_wrong, data.table, data.class_names, names)
        values = measured(seen, chosen["dx"]) | {"epoch": trainer.current_epoch}
        self.record(trainer, split, values, pictures)

    def most_wrong(self, pl_module: LightningModule) -> list[int]:
        """Rows of the test images whose wrong class is likeliest, the surest first."""
        metric: Any = pl_module.metrics["test"]  # type: ignore[index]
        computed = metric.compute()  # of all processes, once for all callbacks
        sure, decided = computed["probability"].max(1)
        wrong = (decided != computed["label"]).nonzero().flatten()
        order = wrong[sure[wrong].argsort(descending=True, stable=True)]
        indices: list[int] = computed["index"][order][: self.mistakes].tolist()
        return indices

    def draw(
        self, seen: Seen, table: pd.DataFrame, classes: Sequence[str], names: Mapping[int, str]
    ) -> list[Image.Image]:
        """Draws the rows that have ``names``, which begin their files' names."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pictures = []
        for i, name in names.items():
            at, row = seen.rows.index(i), table.loc[i]
            sure, decided = seen.probability[at].max(0)
            caption = f"{row['dx']}, taken for {classes[int(decided)]} ({sure:.0%})"
            maps = {kind: heat[at] for kind, heat in seen.maps.items()}
            mask = None if seen.mask is None else seen.mask[at]
            page = picture(seen.image[at], maps, f"{row['image_id']}: {caption}", mask)
            page.save(self.folder / f"{name}_{row['image_id']}.png")
            pictures.append(page)
        return pictures

    def record(
        self, trainer: Trainer, split: str, values: dict[str, float], pictures: list[Image.Image]
    ) -> None:
        keys = {key if key == "epoch" else f"{split}/{key}": x for key, x in values.items()}
        for logger in trainer.loggers:
            logger.log_metrics(keys, step=max(trainer.global_step - 1, 0))
            if isinstance(logger, ResilientWandbLogger):
                media = [wandb.Image(page) for page in pictures]
                logger.log_media({f"{split}/saliency": media})
        if split == "test":
            means = {key: x for key, x in values.items() if key in ("pointing", "energy")}
            area = values.get("lesion_area", float("nan"))
            said = (
                f"{in_words(means)}; lesions are {decimals(area)} of the images; " if means else ""
            )
            print(f"Where it looked: {said}{len(pictures)} pictures in {self.folder}.")


class Seen(NamedTuple):
    """Images as :meth:`HAM10000.gather` has them, and what a network made of them.

    Args:
        rows: Their N rows in the data's table.
        image: (N, 3, H, W).
        mask: (N, H, W); None where the data have none.
        probability: (N, K).
        maps: Name to map (N, h, w).
    """

    rows: list[int]
    image: Tensor
    mask: Tensor | None
    probability: Tensor
    maps: dict[str, Tensor]


def look(model: LightningModule, data: Any, index: Sequence[int], batch_size: int = 32) -> Seen:
    """Maps of the images in some rows of the data's table."""
    batch = data.gather(list(index))
    logits, maps = [], []
    for images in batch["image"].split(batch_size):
        z, m = attention_maps(model, images.to(model.device))
        logits.append(z.float().cpu())
        maps.append({name: heat.float().cpu() for name, heat in m.items()})
    joined = {name: torch.cat([m[name] for m in maps]) for name in maps[0]}
    probability = torch.cat(logits).softmax(1)
    mask = batch["mask"].squeeze(1) if "mask" in batch else None
    return Seen(list(index), batch["image"], mask, probability, joined)


def first_lesions(images: pd.DataFrame, number: int) -> pd.DataFrame:
    """The first lesions of each class in a split, one image each."""
    return images.drop_duplicates("lesion_id").groupby("label").head(number)


def measured(seen: Seen, dx: pd.Series[str]) -> dict[str, float]:
    """Pointing game and energy of each class, and their means over the classes."""
    if seen.mask is None:
        return {}
    pointing, energy = inside(list(seen.maps.values())[-1], seen.mask)
    table = pd.DataFrame({"pointing": pointing.numpy(), "energy": energy.numpy()})
    means = table.groupby(dx.to_numpy(), sort=False).mean()
    each = {f"{name}_{c}": x for name in means for c, x in means[name].dropna().items()}
    overall = {str(name): float(x) for name, x in means.mean().dropna().items()}
    return each | overall | {"lesion_area": float(seen.mask.mean())}
