"""What a run says of images that it was never told about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.errors import RunError
from callbacks.files import as_text, write_table
from callbacks.recording.decision import Decision


class Predictions(Callback):
    """Writes ``predictions.csv``: image, probability of each class, decision.

    The decision is the likeliest class, or by the rule that was chosen for the run. Bytes of a
    file name that are not UTF-8 are escaped, see :func:`~callbacks.files.as_text`.

    An image that cannot be read has no probabilities, ``unreadable`` for its decision, and the
    reason in a column of its own.

    Args:
        dirpath: The run folder; the command line fills it in.
        output: Where the table goes instead.
    """

    def __init__(self, dirpath: str = "", output: Path | None = None) -> None:
        self.dirpath = Path(dirpath)
        self.path = output or self.dirpath / "predictions.csv"
        self.rows: list[pd.DataFrame] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":  # a broken decision must not prevent that it is chosen again
            return
        if trainer.world_size > 1:
            raise RunError("Prediction runs on one device: add --trainer.devices=1.")
        self.decision = Decision.load(self.dirpath)

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
        names = list(trainer.datamodule.class_names)  # type: ignore[attr-defined]
        files = [dataset.files[i].relative_to(dataset.folder) for i in batch["index"].tolist()]
        readable = batch["readable"].cpu().numpy()
        rows = pd.DataFrame(outputs.cpu().numpy(), columns=[f"p_{name}" for name in names])
        rows.loc[~readable] = float("nan")
        rows.insert(0, "image", [as_text(file) for file in files])
        decided = (self.decision or Decision(tuple(names)))(outputs.cpu())
        decision = pd.Series([names[i] for i in decided.tolist()])
        rows["decision"] = decision.where(readable, "unreadable")
        rows["reason"] = [
            "" if known else dataset.why_unreadable(i)
            for i, known in zip(batch["index"].tolist(), readable, strict=True)
        ]
        self.rows.append(rows)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        table = pd.concat(self.rows, ignore_index=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_table(self.path, table)
        failed = table[table["decision"] == "unreadable"]
        unreadable = failed["image"] + " (" + failed["reason"] + ")"
        print(f"{len(table) - len(unreadable)} predictions in {self.path}")
        if len(unreadable):
            print(f"{len(unreadable)} images cannot be read: {', '.join(unreadable[:20])}")
        if remark := trainer.predict_dataloaders.dataset.remark:  # type: ignore[union-attr]
            print(remark)
