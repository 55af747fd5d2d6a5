"""What a run is worth: the test metrics, and the prediction for every test image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.console import in_words
from callbacks.errors import RunError
from callbacks.files import write_json, write_table
from callbacks.recording.course import course
from callbacks.recording.decision import FILE, Decision, outcome
from callbacks.recording.log_config import commit
from callbacks.recording.wandb_logger import ResilientWandbLogger

COLUMNS = ("image_id", "lesion_id", "dx", "age", "sex", "localization", "dx_type")
LAST = "last_"  # begins the names of the files about a run's last epoch

KEPT = (
    "config.yaml",
    "split.csv",
    "metrics.jsonl",
    "results.json",
    "test_predictions.csv",
    "test_fidelity.csv",
    f"{LAST}results.json",
    f"{LAST}test_predictions.csv",
)


class Results(Callback):
    """Writes ``results.json`` and ``test_predictions.csv`` to the run folder after a test.

    The test of a run's ``last.ckpt`` goes to ``last_results.json`` and
    ``last_test_predictions.csv``, beside those of the best epoch; a decision, which is chosen for
    the best epoch, does not apply to it. A run without a diagnosis, such as a codec's, has no
    predictions. W&B keeps what a comparison needs with the run, so that it can be made from there.

    Args:
        dirpath: The run folder; the command line fills it in.
    """

    def __init__(self, dirpath: str = "") -> None:
        self.dirpath = Path(dirpath)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        metric: Any = pl_module.metrics["test"]  # type: ignore[index]
        computed = metric.compute()
        whole = len(computed["label"]) == (data.table["split"] == "test").sum()
        if not trainer.is_global_zero or not whole:  # a trial run is no result
            return
        self.dirpath.mkdir(parents=True, exist_ok=True)
        last = Path(trainer.ckpt_path or "").name == "last.ckpt"
        # The header is that of earlier runs, so that their hash of the same split stays equal.
        split = data.table["split"].to_csv(header=["part"])
        record = {
            "name": self.dirpath.parent.name,
            "seed": data.seed,
            "synthetic": data.synthetic,
            "checkpoint": _checkpoint(trainer),
            "split": hashlib.sha256(split.encode()).hexdigest()[:12],
            "metrics": {k: v.item() for k, v in computed.items() if v.ndim == 0},
            "parameters": _parameters(pl_module),
            "commit": commit(),
            "torch": torch.__version__,
        }
        if pl_module.diagnoses:
            images = data.class_table["val"].to_dict()
            record["training"] = course(self.dirpath / "metrics.jsonl", images)
            record |= self.diagnosis(computed, metric.class_names, data.table, last)
        write_json(self.dirpath / f"{LAST * last}results.json", record)
        for logger in trainer.loggers:
            if isinstance(logger, ResilientWandbLogger):
                logger.keep_files([self.dirpath / name for name in KEPT], self.dirpath.parents[1])

    def diagnosis(
        self, computed: dict[str, Any], classes: list[str], images: pd.DataFrame, last: bool
    ) -> dict[str, Any]:
        """Writes the predictions, and returns what the results have of them."""
        predictions = images.loc[computed["index"].tolist()].filter(COLUMNS).reset_index(drop=True)
        columns = [f"p_{name}" for name in classes]
        probabilities = pd.DataFrame(computed["probability"].cpu().numpy(), columns=columns)
        table = pd.concat([predictions, probabilities], axis="columns")
        decided = None if last else self.decided(computed, classes)
        by_decision = None
        if decided is not None:
            table["decision"] = [classes[c] for c in decided.tolist()]
            by_decision = outcome(decided, computed["label"].cpu(), classes)
            print(f"With {FILE}: {in_words(by_decision)}")
        write_table(self.dirpath / f"{LAST * last}test_predictions.csv", table)
        confusion = computed["confusion"].tolist()
        return {"classes": classes, "decided": by_decision, "confusion": confusion}

    def decided(self, computed: dict[str, Any], classes: list[str]) -> Tensor | None:
        """What the run's decision makes of the test images, if one was chosen."""
        decision = Decision.load(self.dirpath)
        if decision is None:
            return None
        if list(decision.classes) != list(classes):
            raise RunError(f"{self.dirpath / FILE} is for other classes: choose it again.")
        return decision(computed["probability"].cpu())


def _parameters(module: LightningModule) -> int:
    """Of what learns and decides; a key network only follows."""
    own = (p for name, p in module.named_parameters() if "key_network." not in name)
    return sum(p.numel() for p in own)


def _checkpoint(trainer: Trainer) -> dict[str, Any] | None:
    if trainer.ckpt_path is None:
        return None
    state = torch.load(trainer.ckpt_path, map_location="cpu", mmap=True, weights_only=True)
    return {"file": str(trainer.ckpt_path), "epoch": state["epoch"], "step": state["global_step"]}
