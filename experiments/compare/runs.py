"""Evaluated runs: options, history and test predictions, read from run folders."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from callbacks.errors import RunError, reason
from callbacks.recording.lesions import lesion_numbers
from callbacks.recording.metrics_file import read_history
from callbacks.run_folder import RunFolder, read_csv
from datamodules.classes import HAM10000_CLASSES
from experiments.compare.folders import distinct, run_folders
from experiments.compare.intervals import Array

REQUIRED = ("image_id", "lesion_id", "dx")
# Images of each class by the digest of a split.csv, which all runs of a study share.
CLASS_COUNTS: dict[str, pd.Series[int]] = {}


@dataclass(frozen=True, eq=False)
class TestedRun:
    """A trained and evaluated run.

    Args:
        name: Name of the run, shared by all its seeds.
        seed: Seed of everything but the split.
        source: Folder or W&B run that it was read from.
        classes: Names of the K classes, in the order of the probabilities.
        split: Hash of the assignment of images to splits.
        synthetic: Whether the data are synthetic.
        parameters: Number of parameters of the network.
        metrics: Test metrics as recorded by the run.
        remarks: Reasons to doubt the training, as sentences.
        predictions: One row per test image, sorted by id, with ``image_id``, ``lesion_id``, ``dx``,
            a ``p_<class>`` for each class, and the image's metadata. ``decision`` is the class by
            the decision rule, and ``set`` the classes of the prediction set, joined by spaces, if
            the run has them.
        history: Metrics by step, as from :func:`callbacks.recording.metrics_file.read_history`.
        config: All options.
        frequency: Number of images of each class in all splits (K,); None if not recorded.
        fidelity: ``contrast_before`` and ``contrast_after`` compression of each test image, NaN
            where there is none; None if nothing was compressed.
        folder: Run folder, if attention maps can be read from it.
        shots: Classes with many, medium and few training images; empty if not defined.
        titles: Full names of the classes, where known.
        group: Unit of resampling, which ``lesion_id`` holds: ``lesion``, ``patient`` or ``image``.
    """

    __test__ = False  # no test case, for pytest

    name: str
    seed: int
    source: str
    classes: tuple[str, ...]
    split: str
    synthetic: bool
    parameters: int
    metrics: dict[str, float]
    remarks: tuple[str, ...]
    predictions: pd.DataFrame
    history: pd.DataFrame
    config: dict[str, Any]
    frequency: Array | None = None
    fidelity: pd.DataFrame | None = None
    folder: Path | None = None
    shots: Mapping[str, Sequence[str]] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    group: str = "lesion"

    @cached_property
    def label(self) -> Array:
        """True class of every test image (N,)."""
        return self._index(self.predictions["dx"])

    @cached_property
    def lesion(self) -> Array:
        """Number of every test image's lesion (N,); an image without a lesion id is its own."""
        return lesion_numbers(self.predictions)

    @cached_property
    def probability(self) -> Array:
        """Probabilities in single precision, as the run wrote them (N, K)."""
        return self.predictions[[f"p_{c}" for c in self.classes]].to_numpy(np.float32)

    @property
    def decision(self) -> Array | None:
        """Classes (N,) by the decision rule of the run; None if it has none."""
        return self._index(self.predictions["decision"]) if "decision" in self.predictions else None

    @cached_property
    def sets(self) -> Array | None:
        """Whether each class is in the prediction set of each image (N, K); None without sets."""
        if "set" not in self.predictions:
            return None
        listed = [text.split() for text in self.predictions["set"]]
        return np.array([[name in names for name in self.classes] for names in listed])

    @cached_property
    def epochs(self) -> int:
        """Number of epochs trained; 0 if no training was recorded."""
        if "kind" not in self.history:
            return 0
        last = self.history.loc[self.history["kind"] == "train", "epoch"].max()
        return 0 if pd.isna(last) else int(last) + 1

    def _index(self, names: pd.Series[str]) -> Array:
        return pd.Index(self.classes).get_indexer(pd.Index(names))


def read_runs(patterns: Iterable[str], last: bool = False) -> tuple[list[TestedRun], list[str]]:
    """Read the runs in folders.

    Args:
        patterns: Glob patterns of run folders or of folders that contain run folders.
        last: Whether to read the results of the last epoch instead of those of the best.

    Returns:
        The runs, and a sentence for each folder that could not be read.

    Raises:
        RunError: No run could be read, or two have the same name and seed.
    """
    patterns = list(patterns)
    runs: list[TestedRun] = []
    folders = {pattern: run_folders(pattern) for pattern in patterns}
    left_out = [f"{pattern} matches no run folder." for pattern in patterns if not folders[pattern]]
    found, links = distinct(folder for hits in folders.values() for folder in hits)
    for folder in found:
        try:
            runs.append(read_run(folder, last))
        except RunError as error:
            left_out.append(str(error))
    left_out += links
    if not runs:
        raise RunError(
            f"No evaluated run in {' '.join(patterns)}. Train and evaluate one first: "
            f"`make train EXP=small_ce && make evaluate EXP=small_ce`. {' '.join(left_out)}".strip()
        )
    return check_unique(runs), left_out


def check_unique(runs: list[TestedRun]) -> list[TestedRun]:
    """Return the runs if no two have the same name and seed."""
    by_name: dict[tuple[str, int], TestedRun] = {}
    for run in runs:
        if other := by_name.get((run.name, run.seed)):
            raise RunError(
                f"{other.source} and {run.source} have the same name and seed: leave out one "
                "of them with RUNS=, or rename the folder above it."
            )
        by_name[run.name, run.seed] = run
    return runs


def read_run(folder: Path, last: bool = False) -> TestedRun:
    """Read a run folder, ``runs/<name>/seed<n>``.

    Args:
        folder: The run folder.
        last: Whether to read the results of the last epoch instead of those of the best.

    Raises:
        RunError: The folder lacks the results of an evaluated run.
    """
    try:
        return _read(folder, last)
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        how = (
            "evaluate its last.ckpt (CKPT=last)" if last else "train it to the end and evaluate it"
        )
        raise RunError(f"{folder} has no {missing}: {how}.") from None
    except KeyError as error:
        missing = error.args[0]
        raise RunError(
            f"{folder}/results.json has no {missing}: only classifiers can be compared."
        ) from None
    except (ValueError, TypeError, OSError) as error:
        raise RunError(f"{folder} is incomplete ({reason(error)}): evaluate it again.") from None


def _read(folder: Path, last: bool) -> TestedRun:
    files = RunFolder(folder)
    results = json.loads(files.results_file(last).read_text("utf-8"))
    config = files.settings()
    predictions = read_predictions(files.predictions_file(last), results)
    return TestedRun(
        name=folder.absolute().parent.name,
        seed=int(results["seed"]),
        source=str(folder),
        classes=tuple(results["classes"]),
        split=results["split"],
        synthetic=results["synthetic"],
        parameters=results["parameters"],
        metrics={k: np.nan if v is None else v for k, v in results["metrics"].items()},
        remarks=tuple((results.get("training") or {}).get("remarks", ())),
        predictions=predictions,
        history=read_history(files.metrics_file),
        config=config,
        frequency=_frequency(files, results["classes"]),
        fidelity=_fidelity(files.fidelity_file, predictions["image_id"]),
        folder=None if last else folder,
        group=results.get("group", "lesion"),
        **about_classes(tuple(results["classes"]), results),
    )


def about_classes(classes: Sequence[str], results: Mapping[str, Any]) -> dict[str, Any]:
    """Groups and titles of classes; older runs recorded none and had HAM10000's."""
    known = HAM10000_CLASSES if set(classes) <= set(HAM10000_CLASSES.names) else None
    shots = known.shot_groups(dict.fromkeys(classes, 0)) if known else {}
    titles = known.titles if known else {}
    return {"shots": results.get("shots", shots), "titles": results.get("titles", titles)}


def _frequency(files: RunFolder, classes: Sequence[str]) -> Array | None:
    if not files.split_file.exists():
        return None
    key = sha256(files.split_file.read_bytes()).hexdigest()
    if key not in CLASS_COUNTS:
        CLASS_COUNTS[key] = files.split()["dx"].value_counts()
    return CLASS_COUNTS[key].reindex(list(classes), fill_value=0).to_numpy()


def _fidelity(path: Path, images: pd.Series[str]) -> pd.DataFrame | None:
    if not path.exists():
        return None
    columns = ["image_id", "contrast_before", "contrast_after"]
    measured = pd.read_csv(path, usecols=columns).set_index("image_id")
    return measured.reindex(images)


def check_comparable(runs: Sequence[TestedRun]) -> None:
    """Require the classes, test images and split of the first run from all runs.

    Raises:
        RunError: Two runs differ; the message names both.
    """
    first = runs[0]
    for run in runs[1:]:
        if difference := next(_differences(first, run), None):
            raise RunError(
                f"{first.source} and {run.source} cannot be compared because they have "
                f"{difference}: select runs of one kind with RUNS=."
            )


def _differences(one: TestedRun, other: TestedRun) -> Iterator[str]:
    if one.synthetic != other.synthetic:
        yield "synthetic and real images"
    if one.classes != other.classes:
        yield f"different classes ({', '.join(one.classes)}; {', '.join(other.classes)})"
    if not one.predictions["image_id"].equals(other.predictions["image_id"]):
        yield "different test images"
    elif not one.predictions["dx"].equals(other.predictions["dx"]):
        yield "different diagnoses of the test images"
    if one.split != other.split:
        yield "different splits"


def read_predictions(path: Path, results: Mapping[str, Any]) -> pd.DataFrame:
    """Test predictions, sorted by image.

    Raises:
        ValueError: They do not fit the results.
    """
    columns = [f"p_{c}" for c in results["classes"]]
    table = read_csv(path, dict.fromkeys(columns, "float32"))
    table = table.sort_values("image_id", ignore_index=True)
    if missing := {*REQUIRED, *columns} - set(table):
        raise ValueError(f"{path.name} lacks {', '.join(sorted(missing))}")
    if table.empty:
        raise ValueError(f"{path.name} is empty")
    if len(table) != np.sum(results["confusion"]) or table[columns].isna().any(axis=None):
        raise ValueError(f"{path.name} lacks predictions")
    for name in ("dx", "decision"):
        if name in table and not table[name].isin(results["classes"]).all():
            raise ValueError(f"{path.name} has other classes in its column {name}")
    if "set" in table and not {*" ".join(table["set"]).split()} <= {*results["classes"]}:
        raise ValueError(f"{path.name} has other classes in its column set")
    return table
