"""Tests of a run on another data set: ``python -m experiments evaluate RUN --on FOLDER``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from callbacks.atomic_files import write_json, write_table
from callbacks.console import decimals, print_table
from callbacks.errors import RunError
from callbacks.recording.chosen import Chosen
from callbacks.recording.lesions import lesion_numbers
from callbacks.recording.log_config import commit
from callbacks.recording.results import IMAGE_COLUMNS, parameters
from callbacks.run_folder import RunFolder
from datamodules.cache import cached_arrays
from datamodules.data_folder import DataFolder
from datamodules.labeled_images import open_folder
from experiments.compare.comparison import compare
from experiments.compare.intervals import Array
from experiments.compare.other_tables import Subgroups, gap_record, record, subgroups
from experiments.compare.rows import Row
from experiments.compare.runs import TestedRun
from experiments.compare.subgroups import recalls
from experiments.compare.table import SYNTHETIC, interval, number
from experiments.running.place import refuse_name
from experiments.use.external_images import Selection, select
from experiments.use.trained import Run, classes_of, load
from lightning_modules.metrics import DiagnosticMetrics

NEAR = "near_duplicates.csv"
CHUNK = 1024  # images that are read from the cache at once
UNDEFINED = ("recall", "f1")  # of a class without images


def evaluate_on(
    folder: Path,
    on: Path,
    mapping: str | None = None,
    split: str | None = None,
    own: Path | None = None,
    name: str | None = None,
) -> RunFolder:
    """Test the best epoch of a run on another data set.

    The decision rule and the prediction sets are those that were chosen on the run's own
    validation split. Results are written to ``<run>/on/<name>/``, with names as in the run folder;
    the run's own results are not changed.

    Args:
        folder: Run folder.
        on: Folder of the other data set.
        mapping: Classes of its labels, as for :func:`~datamodules.mappings.map_labels`.
        split: ``test`` or ``all`` images, as for :func:`~experiments.use.external_images.select`.
        own: Data set of the run, if it is not where it was during training.
        name: Name of the test. By default that of the folder.

    Returns:
        The folder of the results.

    Raises:
        RunError: The run cannot be used, no image can be scored, or the name is taken.
        DataError: The other data set cannot be read.
    """
    on = on.expanduser()
    name = name or _name_of(on)
    refuse_name(name)
    run, other = load(folder), open_folder(on)
    target = run.folder.on(name)
    _refuse_taken(target, on)
    selection = select(run, other, mapping, split, own)
    probability = probabilities(run, other, selection.images)
    facts = {
        "name": name,
        "root": str(on.resolve()),
        "split": selection.split,
        "mapping": mapping,
        "group": other.group if _grouped(selection.images) else "image",
        "dropped": selection.dropped,
        "leaked": selection.leaked,
        "near_duplicates": len(selection.near),
        "absent": selection.absent,
        "sentences": [*([SYNTHETIC] if other.synthetic else []), *selection.sentences()],
    }
    _write(run, other, target, selection, probability, facts)
    return target


def probabilities(run: Run, other: DataFolder, images: pd.DataFrame) -> Tensor:
    """Probabilities (N, K) of a run for rows of another data set's table, from its cache."""
    chosen = run.folder.settings()["data"].get("cache_dir")
    run.model.to("cuda" if torch.cuda.is_available() else "cpu")
    result = torch.empty(len(images), len(run.class_names))
    for source, rows in images.groupby("source"):
        cache = Path(chosen) if chosen else None
        pixels = cached_arrays(other, str(source), run.size, cache_dir=cache)["image"]
        for start in range(0, len(rows), CHUNK):
            chunk = rows.iloc[start : start + CHUNK]
            result[chunk.index.tolist()] = run.uncalibrated(pixels[chunk["row"].to_numpy()])
    return result


def _write(
    run: Run,
    other: DataFolder,
    target: RunFolder,
    selection: Selection,
    probability: Tensor,
    facts: Mapping[str, Any],
) -> None:
    """Score the probabilities, and write and print the results."""
    print(f"Test of {run.folder.best} on {facts['root']}.")
    for sentence in facts["sentences"]:
        print(sentence)
    images, classes = selection.images, run.class_names
    label = torch.tensor([classes.index(name) for name in images["dx"]])
    chosen = Chosen.load(run.folder.path, classes, run.step)
    table = images.filter([*IMAGE_COLUMNS, "given"])
    table[[f"p_{name}" for name in classes]] = probability.numpy()
    table = table.join(chosen.columns(probability))
    results = _about(run, other, images) | _metrics(probability, label, run, selection.absent)
    results |= chosen.measure(probability, label, lesion_numbers(images))
    comparison = compare([_tested(run, results, table, facts["group"])])
    row = next(row for row in comparison.rows if not row.decided)
    groups = subgroups(comparison)[0]
    near = images["image_id"].isin(selection.near).to_numpy()
    results["intervals"] = {k: v.lesions for k, v in row.metrics.items() if v.lesions}
    results["on"] = {**facts, "balanced_accuracy_without_near": _without(row, near)}
    scores = zip(groups.groups, groups.scores[row.name], strict=True)
    results["subgroups"] = [record(group, score) for group, score in scores]
    results["gaps"] = [gap_record(gap) for gap in groups.gaps[row.name]]
    target.path.mkdir(parents=True, exist_ok=True)
    write_table(target.path / NEAR, selection.leaks.near)
    write_table(target.predictions_file(), table)
    write_json(target.results_file(), results)
    _show(row, groups, results)
    print(f"Wrote {target.path}/. `make compare` shows it beside the run's own test.")


def _about(run: Run, other: DataFolder, images: pd.DataFrame) -> dict[str, Any]:
    """Facts about the run, its classes and the scored images."""
    known, split = classes_of(run.folder), run.folder.split()
    counts = split.loc[split["split"] == "train", "dx"].value_counts()
    training = {name: int(counts.get(name, 0)) for name in run.class_names}
    tested = images[["image_id", "dx"]].to_csv(index=False)
    return {
        "name": run.folder.name,
        "seed": run.folder.seed,
        "synthetic": other.synthetic,
        "checkpoint": {"file": str(run.folder.best), "step": run.step},
        "split": hashlib.sha256(tested.encode()).hexdigest()[:12],
        "parameters": parameters(run.model),
        "commit": commit(),
        "torch": torch.__version__,
        "shots": known.shot_groups(training),
        "titles": {name: known.titles[name] for name in run.class_names},
        "classes": run.class_names,
    }


def _metrics(probability: Tensor, label: Tensor, run: Run, absent: list[str]) -> dict[str, Any]:
    metric = DiagnosticMetrics(run.class_names)
    metric.update(probability.log(), label, torch.arange(len(label)))
    computed = metric.compute()
    values = {name: v.item() for name, v in computed.items() if v.ndim == 0}
    values |= {f"{metric}_{name}": np.nan for metric in UNDEFINED for name in absent}
    return {"metrics": values, "confusion": computed["confusion"].tolist()}


def _tested(run: Run, results: Mapping[str, Any], table: pd.DataFrame, group: str) -> TestedRun:
    return TestedRun(
        name=results["name"],
        seed=results["seed"],
        source=str(run.folder.path),
        classes=tuple(run.class_names),
        split=results["split"],
        synthetic=results["synthetic"],
        parameters=results["parameters"],
        metrics=results["metrics"],
        remarks=(),
        predictions=table,
        history=pd.DataFrame(),
        config={},
        shots=results["shots"],
        group=group,
    )


def _without(row: Row, near: Array) -> float | None:
    """Balanced accuracy without the near-duplicates; None if there are none or nothing else."""
    if not near.any() or near.all():
        return None
    return float(np.nanmean(recalls(row, np.empty((0, len(near))), ~near)[0]))


def _show(row: Row, groups: Subgroups, results: Mapping[str, Any]) -> None:
    """Print the scores of each class and of each subgroup."""
    unit, metrics = results["on"]["group"], row.metrics
    counts = np.bincount(row.runs[0].label, minlength=len(results["classes"])).tolist()
    named = {name: metrics.get(f"recall_{name}") for name in results["classes"]}
    named["balanced accuracy"] = metrics["balanced_accuracy"]
    lines = [
        [name, number(value), interval(value.lesions if value else None), n]
        for (name, value), n in zip(named.items(), [*counts, sum(counts)], strict=True)
    ]
    columns = ["class", "recall", f"95 % interval over {unit}s", "images"]
    print_table(pd.DataFrame(lines, columns=columns), f"On {results['on']['name']}")
    if (without := results["on"]["balanced_accuracy_without_near"]) is not None:
        print(f"Balanced accuracy without near-duplicates: {decimals(without)}.")
    for gap in groups.gaps[row.name]:
        value, bounds = gap.value
        print(
            f"Gap by {gap.kind}: {decimals(value)} {interval(bounds)} between {gap.best} and "
            f"{gap.worst}, over {', '.join(gap.classes)}."
        )


def _name_of(folder: Path) -> str:
    """The name of a test on a folder.

    Raises:
        RunError: The name of the folder has none of the characters that a name may have.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", folder.resolve().name).strip("._-")
    if not name:
        raise RunError(
            f"The name of the folder {folder} has no letters a-z for the name of the test: add "
            "--name NAME."
        )
    return name[:100]


def _grouped(images: pd.DataFrame) -> bool:
    """Whether any lesion or patient is known."""
    return bool((images["lesion_id"] != images["image_id"]).any())


def _refuse_taken(target: RunFolder, on: Path) -> None:
    """Refuse a name that stands for a test on another folder."""
    if not target.results_file().exists():
        return
    root = target.results().get("on", {}).get("root")
    if root != str(on.resolve()):
        raise RunError(
            f"{target.path} has the results of a test on {root}: set --name to another name."
        )
