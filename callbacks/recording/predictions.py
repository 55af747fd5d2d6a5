"""Table of predictions for new images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.atomic_files import as_text, write_table
from callbacks.errors import RunError
from callbacks.recording.chosen import Chosen
from callbacks.recording.decision import Decision
from callbacks.run_callback import RunCallback
from callbacks.run_folder import RunFolder

MAX_UNREADABLE_NAMED = 20


class Predictions(RunCallback):
    """Write ``predictions.csv``: for each image the class probabilities and the decision.

    The decision is the most likely class, or follows the rule chosen for the run. Where the rule
    abstains, ``confident`` is False. The column ``set`` has the prediction set, if the run has
    thresholds for it. Bytes of a file name that are not UTF-8 are escaped, see
    :func:`~callbacks.atomic_files.as_text`.

    An image that cannot be read has no probabilities and the decision ``unreadable``; the column
    ``reason`` says why.

    Args:
        dirpath: Run folder; set by the command line.
        output: File to write instead of ``predictions.csv`` in the run folder.
    """

    def __init__(self, dirpath: str = "", output: Path | None = None) -> None:
        super().__init__(dirpath)
        self.path = output or RunFolder(self.folder).new_predictions
        self.rows: list[pd.DataFrame] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":  # a broken decision must not prevent choosing a new one
            return
        if trainer.world_size > 1:
            raise RunError("Prediction runs on one device: add --trainer.devices=1.")
        Decision.load(self.folder)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        names = list(self.data(trainer).class_names)
        step = (self.checkpoint(trainer) or {}).get("step")
        chosen = Chosen.load(self.folder, names, step)
        self.chosen = replace(chosen, decision=chosen.decision or Decision(tuple(names)))

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
        names = list(self.data(trainer).class_names)
        index = batch["index"].tolist()
        readable = batch["readable"].cpu().numpy()
        rows = pd.DataFrame(outputs.cpu().numpy(), columns=[f"p_{name}" for name in names])
        rows.loc[~readable] = float("nan")
        rows.insert(
            0, "image", [as_text(photos.files[i].relative_to(photos.folder)) for i in index]
        )
        judged = self.chosen.columns(outputs.cpu()).astype(object)
        judged.loc[~readable] = None
        judged.loc[~readable, "decision"] = "unreadable"
        rows = pd.concat([rows, judged], axis="columns")
        rows["reason"] = [
            "" if is_readable else photos.why_unreadable(i)
            for i, is_readable in zip(index, readable, strict=True)
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
            named = ", ".join(unreadable[:MAX_UNREADABLE_NAMED])
            print(f"{len(unreadable)} images cannot be read: {named}")
        photos = self.photos(trainer)
        if len(table) < len(photos):
            print(
                f"{len(photos) - len(table)} images were not predicted: leave out "
                "--trainer.limit_predict_batches, or set it to 1.0."
            )
        if photos.remark:
            print(photos.remark)
