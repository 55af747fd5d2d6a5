"""Attention maps over the images of a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.atomic_files import as_text
from callbacks.looker import Looker
from callbacks.looking.heatmap import COMPRESSION, draw_heatmap
from callbacks.looking.network_attention import attention_maps


class Overlays(Looker):
    """Draw the attention maps of each predicted image: ``overlays/<image>.png`` in the run folder.

    Args:
        dirpath: Run folder; set by the command line.
        output: Folder to write to instead of ``overlays/`` in the run folder.
    """

    def __init__(self, dirpath: str = "", output: Path | None = None) -> None:
        super().__init__(dirpath)
        self.output = output or self.folder / "overlays"

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        photos = self.photos(trainer)
        names = self.data(trainer).class_names
        _, maps = attention_maps(pl_module, batch["image"])
        for at, i in enumerate(batch["index"].tolist()):
            if not batch["readable"][at]:
                continue
            confidence, likeliest = outputs[at].max(0)
            file = photos.files[i].relative_to(photos.folder)
            target = self.output / f"{file}.png"  # two files may differ in their suffix only
            target.parent.mkdir(parents=True, exist_ok=True)
            heat = {name: values[at] for name, values in maps.items()}
            caption = f"{as_text(Path(file.name))}: {names[int(likeliest)]} ({confidence:.0%})"
            draw_heatmap(batch["image"][at], heat, caption).save(target, compress_level=COMPRESSION)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        print(f"Attention maps: {self.output}")
