"""Test results of a run: the metrics, and the prediction for each test image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from callbacks import run_folder
from callbacks.atomic_files import write_json, write_table
from callbacks.console import decimals, in_words
from callbacks.errors import RunError
from callbacks.recording.course import course
from callbacks.recording.decision import Decision, outcome
from callbacks.recording.log_config import commit
from callbacks.run_callback import RunCallback
from callbacks.run_folder import DECISION as DECISION_FILE
from callbacks.run_folder import RunFolder

IMAGE_COLUMNS = ("image_id", "lesion_id", "dx", "age", "sex", "localization", "dx_type")
# Files that a comparison of runs needs.
UPLOADED_FILES = (
    run_folder.CONFIG,
    run_folder.SPLIT,
    run_folder.CLASSES,
    run_folder.METRICS,
    run_folder.RESULTS,
    run_folder.TEST_PREDICTIONS,
    run_folder.FIDELITY,
    f"{run_folder.OF_LAST_EPOCH}{run_folder.RESULTS}",
    f"{run_folder.OF_LAST_EPOCH}{run_folder.TEST_PREDICTIONS}",
)


class Results(RunCallback):
    """Write ``results.json`` and ``test_predictions.csv`` to the run folder after a test.

    A test of ``last.ckpt`` writes ``last_results.json`` and ``last_test_predictions.csv`` instead,
    without a decision, which is chosen for the best epoch. A run that does not classify, such as a
    codec's, has no predictions. The files that a comparison needs are also uploaded to W&B, so that
    runs can be compared from there.
    """

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = self.data(trainer)
        metric = self.metric(pl_module, "test")
        computed = metric.compute()
        if not trainer.is_global_zero:
            return
        tested, all_images = len(computed["label"]), int((data.table["split"] == "test").sum())
        if tested < all_images:
            print(
                f"No results were written: {tested} of {all_images} test images were scored. Leave "
                "out --trainer.limit_test_batches, or set it to 1.0."
            )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        last = Path(trainer.ckpt_path or "").name == run_folder.LAST
        record: dict[str, Any] = {
            "name": self.folder.parent.name,
            "seed": data.seed,
            "synthetic": data.synthetic,
            "checkpoint": _checkpoint(trainer),
            "split": hashlib.sha256(data.table["split"].to_csv().encode()).hexdigest()[:12],
            "metrics": {k: v.item() for k, v in computed.items() if v.ndim == 0},
            "parameters": _parameters(pl_module),
            "commit": commit(),
            "torch": torch.__version__,
        }
        if pl_module.diagnoses:
            images = {str(name): int(n) for name, n in data.class_table["val"].items()}
            record["training"] = course(RunFolder(self.folder).metrics_file, images)
            record["shots"] = dict(data.shots)
            record |= self.diagnosis(computed, metric.class_names, data.table, last)
        write_json(RunFolder(self.folder).results_file(last), record)
        if pl_module.diagnoses:
            found, chance = record["metrics"]["balanced_accuracy"], 1 / len(data.class_names)
            print(f"Balanced accuracy {decimals(found)}; guessing has {decimals(chance)}.")
        files = [self.folder / name for name in UPLOADED_FILES]
        for dashboard in self.dashboards(trainer):
            dashboard.keep_files(files, self.folder.parents[1])

    def diagnosis(
        self, computed: dict[str, Tensor], classes: list[str], images: pd.DataFrame, last: bool
    ) -> dict[str, Any]:
        """Write the predictions, and return their part of the results."""
        predictions = (
            images.loc[computed["index"].tolist()].filter(IMAGE_COLUMNS).reset_index(drop=True)
        )
        columns = [f"p_{name}" for name in classes]
        probabilities = pd.DataFrame(computed["probability"].cpu().numpy(), columns=columns)
        table = pd.concat([predictions, probabilities], axis="columns")
        decided = None if last else self.decided(computed, classes)
        by_decision = None
        if decided is not None:
            table["decision"] = [classes[c] for c in decided.tolist()]
            by_decision = outcome(decided, computed["label"].cpu(), classes)
            print(f"With {DECISION_FILE}: {in_words(by_decision)}")
        write_table(RunFolder(self.folder).predictions_file(last), table)
        confusion = computed["confusion"].tolist()
        return {"classes": classes, "decided": by_decision, "confusion": confusion}

    def decided(self, computed: dict[str, Tensor], classes: list[str]) -> Tensor | None:
        """The classes of the test images by the run's decision, or None if none was chosen."""
        decision = Decision.load(self.folder)
        if decision is None:
            return None
        if list(decision.classes) != list(classes):
            raise RunError(
                f"{self.folder / DECISION_FILE} is for other classes: choose it again with "
                "`make decide`."
            )
        return decision(computed["probability"].cpu())


def _parameters(module: LightningModule) -> int:
    """Number of parameters; a key network, which only follows another network, does not count."""
    counted = (p for name, p in module.named_parameters() if "key_network." not in name)
    return sum(p.numel() for p in counted)


def _checkpoint(trainer: Trainer) -> dict[str, Any] | None:
    if trainer.ckpt_path is None:
        return None
    state = torch.load(trainer.ckpt_path, map_location="cpu", mmap=True, weights_only=True)
    return {"file": str(trainer.ckpt_path), "epoch": state["epoch"], "step": state["global_step"]}
