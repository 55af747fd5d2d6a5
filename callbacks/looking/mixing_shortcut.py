"""Warns when a network tells classes by whether an image is mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn.functional import one_hot

from callbacks.looker import Looker
from callbacks.recording.wandb_logger import ResilientWandbLogger

GAP, CHANCE = 0.1, 0.001  # a warning wants a difference that matters and is not chance


class MixingShortcut(Looker):
    """Compares, after every validation, answers for clean images and for the same images mixed.

    Mixing with images of the most frequent class can only make an image look more like that class.
    If the clean images are called that class more often than the mixes, the network has learned
    that what is not mixed belongs to it; as no test image is mixed, that class is all it will
    answer. Logs ``val/called_<class>_clean_<c>`` and ``val/called_<class>_mixed_<c>``: the shares
    of the images of each class c that are called the most frequent class. A warning is printed and
    the run is tagged on W&B if the mean shares differ by more than 0.1 and an exact sign test over
    the images gives less than 0.001.

    Models without a mix are left alone. Of soft labels, only mixes count whose own label has at
    least half of the weight.

    Args:
        images: Largest number of validation images per class.
    """

    def __init__(self, images: int = 20) -> None:
        self.images = images
        self.pairs: dict[str, Tensor] = {}  # pixels in uint8

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, data = pl_module, trainer.datamodule  # type: ignore[attr-defined]
        mixes = not isinstance(getattr(module, "mix", nn.Identity()), nn.Identity)
        if not mixes or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        names, head = data.class_names, int(np.argmax(data.class_counts))
        self.pairs = self.pairs or self.gathered(data, head)
        if not len(self.pairs.get("label", ())):
            return
        with torch.random.fork_rng([module.device] if module.device.type == "cuda" else []):
            torch.manual_seed(0)  # the same mixes in every process and every epoch
            clean, mixed, label = self.answers(module, max(2, data.batch_size // 2 * 2))
        if not len(label):  # no mix has most of its own label
            return
        clean, mixed = clean == head, mixed == head
        for c in label.unique().tolist():
            for kind, called in (("clean", clean), ("mixed", mixed)):
                share = called[label == c].float().mean()
                module.log(f"val/called_{names[head]}_{kind}_{names[c]}", share)
        if part_ways(clean, mixed) and trainer.is_global_zero:
            print(
                f"SHORTCUT in epoch {trainer.current_epoch}: {clean.float().mean():.0%} of the "
                f"validation images are called {names[head]} as they are, and "
                f"{mixed.float().mean():.0%} when mixed. The network seems to tell classes by "
                "whether an image is mixed: mix all classes alike (model.mix, data.sampler)."
            )
            for logger in trainer.loggers:
                if isinstance(logger, ResilientWandbLogger):
                    logger.add_tag("shortcut")

    def gathered(self, data: Any, head: int) -> dict[str, Tensor]:
        """Validation images in even rows, each followed by a training image of class ``head``."""
        table = data.table
        own = table[table["split"] == "val"].groupby("label").head(self.images)
        heads = table[(table["split"] == "train") & (table["label"] == head)]
        if own.empty or heads.empty:
            return {}
        partners = heads.iloc[np.linspace(0, len(heads) - 1, len(own)).astype(int)]
        both = [data.gather(rows.index.tolist()) for rows in (own, partners)]
        return {
            name: _in_bytes(torch.stack([part[name] for part in both], dim=1).flatten(0, 1))
            for name in both[0].keys() & both[1].keys()
        }

    @torch.no_grad()
    def answers(self, module: Any, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Classes of the validation images as they are, and mixed, and their labels, on the CPU."""
        found = []
        for start in range(0, len(self.pairs["label"]), size):
            batch = {k: v[start : start + size].to(module.device) for k, v in self.pairs.items()}
            pixels = {k: v.float() / 255 for k, v in batch.items() if v.dtype == torch.uint8}
            batch = batch | pixels
            logits, label = module.mixed(batch)
            own = batch["label"][::2]
            soft = label if label.ndim == 2 else one_hot(label, logits.shape[1])
            counts = soft.gather(1, own[:, None])[:, 0] >= 0.5
            clean = module(batch["image"][::2]).argmax(1)
            found.append(torch.stack([clean, logits.argmax(1), own])[:, counts].cpu())
        clean, mixed, label = torch.cat(found, dim=1)
        return clean, mixed, label


def _in_bytes(values: Tensor) -> Tensor:
    return values.mul(255).round().byte() if values.is_floating_point() else values


def part_ways(clean: Tensor, mixed: Tensor) -> bool:
    """Whether more of the same images (n,) are called a class clean than mixed."""
    only_clean, only_mixed = int((clean & ~mixed).sum()), int((mixed & ~clean).sum())
    if only_clean - only_mixed <= GAP * len(clean):
        return False
    test = binomtest(only_clean, only_clean + only_mixed, alternative="greater")
    return bool(test.pvalue < CHANCE)
