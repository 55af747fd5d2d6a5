"""Where the network looked in images of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.files import as_text
from callbacks.looker import Looker
from callbacks.looking.attention_maps import attention_maps
from callbacks.looking.overlay import picture


class Overlays(Looker):
    """Draws a picture beside each prediction: ``overlays/<image>.png``, in the run folder.

    Args:
        dirpath: The run folder; the command line fills it in.
        output: Where the pictures go instead.
    """

    def __init__(self, dirpath: str = "", output: Path | None = None) -> None:
        self.folder = output or Path(dirpath, "overlays")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        dataset: Any = trainer.predict_dataloaders.dataset  # type: ignore[union-attr]
        names = trainer.datamodule.class_names  # type: ignore[attr-defined]
        _, maps = attention_maps(pl_module, batch["image"])
        for at, i in enumerate(batch["index"].tolist()):
            if not batch["readable"][at]:
                continue
            sure, likeliest = outputs[at].max(0)
            file = dataset.files[i].relative_to(dataset.folder)
            target = self.folder / f"{file}.png"  # two files may differ in their suffix alone
            target.parent.mkdir(parents=True, exist_ok=True)
            heat = {name: each[at] for name, each in maps.items()}
            caption = f"{as_text(Path(file.name))}: {names[int(likeliest)]} ({sure:.0%})"
            picture(batch["image"][at], heat, caption).save(target)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        print(f"Where it looked: {self.folder}")
