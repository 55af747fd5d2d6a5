"""Warning when a network recognizes classes by whether an image is mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from scipy.special import bdtrc  # scipy.stats takes a second to import
from torch import Tensor, nn
from torch.nn.functional import one_hot

from callbacks.looker import Looker
from callbacks.run_callback import Data

MIN_GAP = 0.1  # between the mean shares, for a warning
MAX_P_VALUE = 0.001  # of the sign test, for a warning


class MixingShortcut(Looker):
    """Compares, after every validation, the decisions for clean images and for their mixes.

    Mixing with images of the most frequent class can only make an image look more like that class.
    If clean images are classified as that class more often than their mixes, the network has
    learned that unmixed images belong to it; since no test image is mixed, it will decide for that
    class only. Logs ``val/called_<class>_clean_<c>`` and ``val/called_<class>_mixed_<c>``: the
    share of the images of class c that are classified as the most frequent class. Prints a warning
    and tags the run ``shortcut`` on W&B if the mean shares differ by more than 0.1 and the p-value
    of an exact sign test over the images is below 0.001.

    Does nothing for models without a mix. With soft labels, a mix counts if the image's own label
    has at least half of the weight.

    Args:
        images: Maximum number of validation images per class, at least 1.
    """

    def __init__(self, images: int = 20) -> None:
        super().__init__()
        self.images = images
        self.pairs: dict[str, Tensor] = {}  # pixels in uint8

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module, data = pl_module, self.data(trainer)
        mixes = not isinstance(getattr(module, "mix", nn.Identity()), nn.Identity)
        if not mixes or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        names, head = data.class_names, int(np.argmax(data.class_counts))
        self.pairs = self.pairs or self.gather_pairs(data, head)
        if not len(self.pairs.get("label", ())):
            return
        with torch.random.fork_rng([module.device] if module.device.type == "cuda" else []):
            torch.manual_seed(0)  # the same mixes in every process and every epoch
            clean, mixed, label = self.classify(module, max(2, data.batch_size // 2 * 2))
        if not len(label):  # every mix has most of another label
            return
        clean, mixed = clean == head, mixed == head
        for c in label.unique().tolist():
            for kind, called in (("clean", clean), ("mixed", mixed)):
                share = called[label == c].float().mean()
                module.log(f"val/called_{names[head]}_{kind}_{names[c]}", share)
        if clean_exceeds_mixed(clean, mixed) and trainer.is_global_zero:
            print(
                f"SHORTCUT in epoch {trainer.current_epoch}: {clean.float().mean():.0%} of the "
                f"validation images are classified as {names[head]} unmixed, and "
                f"{mixed.float().mean():.0%} when mixed. The network seems to recognize classes by "
                "whether an image is mixed: mix all classes alike (--model.mix, --data.sampler)."
            )
            for dashboard in self.dashboards(trainer):
                dashboard.add_tag("shortcut")

    def gather_pairs(self, data: Data, head: int) -> dict[str, Tensor]:
        """Gather validation images in even rows, training images of class ``head`` in odd rows."""
        table = data.table
        anchors = table[table["split"] == "val"].groupby("label").head(self.images)
        heads = table[(table["split"] == "train") & (table["label"] == head)]
        if anchors.empty or heads.empty:
            return {}
        partners = heads.iloc[np.linspace(0, len(heads) - 1, len(anchors)).astype(int)]
        both = [data.gather(rows.index.tolist()) for rows in (anchors, partners)]
        return {
            name: _in_bytes(torch.stack([batch[name] for batch in both], dim=1).flatten(0, 1))
            for name in both[0].keys() & both[1].keys()
        }

    @torch.no_grad()
    def classify(self, module: Any, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Classes of the clean and the mixed validation images and their labels, on the CPU."""
        batches = []
        for start in range(0, len(self.pairs["label"]), size):
            batch = {k: v[start : start + size].to(module.device) for k, v in self.pairs.items()}
            pixels = {k: v.float() / 255 for k, v in batch.items() if v.dtype == torch.uint8}
            batch = batch | pixels
            logits, label = module.mixed(batch)
            labels = batch["label"][::2]
            soft = label if label.ndim == 2 else one_hot(label, logits.shape[1])
            counts = soft.gather(1, labels[:, None])[:, 0] >= 0.5
            clean = module(batch["image"][::2]).argmax(1)
            batches.append(torch.stack([clean, logits.argmax(1), labels])[:, counts].cpu())
        clean, mixed, label = torch.cat(batches, dim=1)
        return clean, mixed, label


def _in_bytes(values: Tensor) -> Tensor:
    return values.mul(255).round().byte() if values.is_floating_point() else values


def clean_exceeds_mixed(clean: Tensor, mixed: Tensor) -> bool:
    """Whether a class is decided for more often if the same images (n,) are clean than if mixed."""
    only_clean, only_mixed = int((clean & ~mixed).sum()), int((mixed & ~clean).sum())
    if only_clean - only_mixed <= MIN_GAP * len(clean):
        return False
    # One-sided sign test: probability of at least as many successes.
    p_value = bdtrc(only_clean - 1, only_clean + only_mixed, 0.5)
    return bool(p_value < MAX_P_VALUE)
