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
from callbacks.console import decimals
from callbacks.recording.chosen import Chosen
from callbacks.recording.course import course
from callbacks.recording.lesions import lesion_numbers
from callbacks.recording.log_config import commit
from callbacks.run_callback import RunCallback
from callbacks.run_folder import RunFolder

IMAGE_COLUMNS = ("image_id", "lesion_id", "dx", "age", "sex", "localization", "dx_type", "tone")
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
    without decisions and sets, which are chosen for the best epoch. A run that does not classify,
    such as a codec's, has no predictions. The files that a comparison needs are also uploaded to
    W&B, so that runs can be compared from there.
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
            "checkpoint": self.checkpoint(trainer),
            "split": hashlib.sha256(data.table["split"].to_csv().encode()).hexdigest()[:12],
            "metrics": {k: v.item() for k, v in computed.items() if v.ndim == 0},
            "parameters": parameters(pl_module),
            "commit": commit(),
            "torch": torch.__version__,
        }
        if pl_module.diagnoses:
            images = {str(name): int(n) for name, n in data.class_table["val"].items()}
            record["training"] = course(RunFolder(self.folder).metrics_file, images)
            record["group"] = data.group
            record["shots"] = dict(data.shots)
            record["titles"] = {name: data.classes.titles[name] for name in data.class_names}
            record |= self.diagnosis(
                computed, metric.class_names, data.table, record["checkpoint"], last
            )
        write_json(RunFolder(self.folder).results_file(last), record)
        if pl_module.diagnoses:
            found, chance = record["metrics"]["balanced_accuracy"], 1 / len(data.class_names)
            print(f"Balanced accuracy {decimals(found)}; guessing has {decimals(chance)}.")
        files = [self.folder / name for name in UPLOADED_FILES]
        for dashboard in self.dashboards(trainer):
            dashboard.keep_files(files, self.folder.parents[1])

    def diagnosis(
        self,
        computed: dict[str, Tensor],
        classes: list[str],
        images: pd.DataFrame,
        checkpoint: dict[str, Any] | None,
        last: bool,
    ) -> dict[str, Any]:
        """Write the predictions, and return their part of the results."""
        chosen = Chosen(None, None)
        if not last:
            chosen = Chosen.load(self.folder, classes, (checkpoint or {}).get("step"))
        tested = images.loc[computed["index"].tolist()].reset_index(drop=True)
        probability, label = computed["probability"].cpu(), computed["label"].cpu()
        table = tested.filter(IMAGE_COLUMNS)
        table[[f"p_{name}" for name in classes]] = probability.numpy()
        table = table.join(chosen.columns(probability))
        measured = chosen.measure(probability, label, lesion_numbers(tested))
        write_table(RunFolder(self.folder).predictions_file(last), table)
        return {"classes": classes, **measured, "confusion": computed["confusion"].tolist()}


def parameters(module: LightningModule) -> int:
    """Number of parameters; a key network, which only follows another network, does not count."""
    counted = (p for name, p in module.named_parameters() if "key_network." not in name)
    return sum(p.numel() for p in counted)
