"""Runs as they are compared: what each was told, how it learned, what it predicted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from callbacks.errors import RunError, reason
from callbacks.recording.history import read_history
from callbacks.recording.results import LAST

Array = NDArray[Any]
REQUIRED = ("image_id", "lesion_id", "dx")


@dataclass(frozen=True, eq=False)
class Run:
    """A trained and tested run.

    Args:
        name: What its seeds have in common.
        seed: Of everything but the split.
        source: Where it was read from.
        classes: Names of the K classes, in the order of the probabilities.
        split: Hash of which image is in which part.
        synthetic: Whether its lesions are drawn.
        parameters: Of the network.
        metrics: Of the test part, as the run itself recorded them.
        remarks: What in its training should make a reader doubt the result.
        predictions: A row for each test image, in the order of their ids, with ``image_id``,
            ``lesion_id``, ``dx``, a ``p_<class>`` for each class, and what else is known of it.
        history: As :func:`callbacks.recording.history.read_history` gives it.
        config: Every option.
        frequency: Images (K,) of each class in all parts; None if not recorded.
        contrast: What compression took of the size of each test image's contrast (N,), NaN where
            there is none; None if nothing was compressed.
        folder: Where its saliency maps may lie.
    """

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
    contrast: Array | None = None
    folder: Path | None = None

    @cached_property
    def label(self) -> Array:
        """The true class (N,) of every test image."""
        return self._index(self.predictions["dx"])

    @cached_property
    def lesion(self) -> Array:
        """The number (N,) of every test image's lesion; an image without one is one."""
        lesion = self.predictions["lesion_id"].fillna(self.predictions["image_id"])
        return pd.factorize(lesion)[0]

    @cached_property
    def probability(self) -> Array:
        """Probabilities (N, K), as the run wrote them in single precision."""
        return self.predictions[[f"p_{c}" for c in self.classes]].to_numpy(np.float32)

    @property
    def decision(self) -> Array | None:
        """The classes (N,) that the run's own rule decided, if one was chosen."""
        return self._index(self.predictions["decision"]) if "decision" in self.predictions else None

    def _index(self, names: pd.Series[Any]) -> Array:
        return pd.Index(self.classes).get_indexer(pd.Index(names))


def read_runs(patterns: Iterable[str], last: bool = False) -> tuple[list[Run], list[str]]:
    """The runs in folders, and a sentence for each folder that cannot be read.

    Args:
        patterns: Run folders, folders of them, or patterns of either.
        last: Whether to read the results of the last epoch instead of those of the best.

    Raises:
        RunError: There is none, or two are called alike.
    """
    patterns = list(patterns)
    runs, left_out = [], []
    for folder in _folders(patterns):
        try:
            runs.append(read_run(folder, last))
        except RunError as error:
            left_out.append(str(error))
    if not runs:
        raise RunError(
            f"There is no finished run in {' '.join(patterns)}: make one with "
            f"`make train EXP=small_ce && make evaluate EXP=small_ce`. {' '.join(left_out)}".strip()
        )
    return one_each(runs), left_out


def one_each(runs: list[Run]) -> list[Run]:
    """The runs, of which no two may have the same name and seed."""
    seen: dict[tuple[str, int], Run] = {}
    for run in runs:
        if other := seen.get((run.name, run.seed)):
            raise RunError(f"{other.source} and {run.source} are called alike: rename one.")
        seen[run.name, run.seed] = run
    return runs


def read_run(folder: Path, last: bool = False) -> Run:
    """The run of ``runs/<name>/seed<n>``, at its best or at its last epoch.

    Raises:
        RunError: The folder is not that of a finished run.
    """
    epoch = LAST if last else ""
    try:
        results = json.loads((folder / f"{epoch}results.json").read_text("utf-8"))
        config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
        predictions = _predictions(folder / f"{epoch}test_predictions.csv", results)
        run = Run(
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
            history=read_history(folder / "metrics.jsonl"),
            config=config,
            frequency=_frequency(folder / "split.csv", results["classes"]),
            contrast=_contrast(folder / "test_fidelity.csv", predictions["image_id"]),
            folder=None if last else folder,
        )
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        how = "test its last.ckpt" if last else "train and evaluate it to its end"
        raise RunError(f"{folder} has no {missing}: {how}.") from None
    except KeyError as error:
        missing = error.args[0]
        raise RunError(
            f"{folder} has no {missing} in results.json: is it a classifier's?"
        ) from None
    except (ValueError, TypeError, OSError, yaml.YAMLError) as error:
        raise RunError(f"{folder} is half-written ({reason(error)}): evaluate it again.") from None
    return run


def _frequency(path: Path, classes: Sequence[str]) -> Array | None:
    if not path.exists():
        return None
    diagnosis = pd.read_csv(path)["dx"]
    return np.array([(diagnosis == name).sum() for name in classes])


def _contrast(path: Path, images: pd.Series[str]) -> Array | None:
    if not path.exists():
        return None
    measured = pd.read_csv(path).set_index("image_id")
    lost = measured["contrast_before"].abs() - measured["contrast_after"].abs()
    return lost.reindex(images).to_numpy()


def comparable(runs: Sequence[Run]) -> None:
    """Holds all runs to the first one's classes, lesions and split.

    Raises:
        RunError: Two runs were not asked the same; both are named.
    """
    first = runs[0]
    for run in runs[1:]:
        if what := next(_differences(first, run), None):
            raise RunError(
                f"{first.source} and {run.source} cannot be compared, for they have {what}: "
                "choose runs of one kind with RUNS."
            )


def _differences(one: Run, other: Run) -> Iterator[str]:
    if one.synthetic != other.synthetic:
        yield "drawn lesions here and real ones there"
    if one.classes != other.classes:
        yield f"different classes ({', '.join(one.classes)}; {', '.join(other.classes)})"
    if not one.predictions["image_id"].equals(other.predictions["image_id"]):
        yield "different test images"
    elif not one.predictions["dx"].equals(other.predictions["dx"]):
        yield "different diagnoses of the test images"
    if one.split != other.split:
        yield "different splits"


def _folders(patterns: Iterable[str]) -> list[Path]:
    hits = [Path(hit) for pattern in patterns for hit in sorted(glob(pattern))]
    found = [
        hit if hit.name.startswith("seed") else deeper
        for hit in hits
        for deeper in ([hit] if hit.name.startswith("seed") else _below(hit))
    ]
    return list(dict.fromkeys(path for path in found if path.is_dir()))


def _below(folder: Path) -> list[Path]:
    return sorted(folder.glob("seed*")) or sorted(folder.glob("*/seed*"))


def _predictions(path: Path, results: dict[str, Any]) -> pd.DataFrame:
    columns = [f"p_{c}" for c in results["classes"]]
    table = pd.read_csv(path, dtype=dict.fromkeys(columns, "float32"))
    table = table.sort_values("image_id", ignore_index=True)
    if missing := {*REQUIRED, *columns} - set(table):
        raise ValueError(f"{path.name} lacks {', '.join(sorted(missing))}")
    if table.empty:
        raise ValueError(f"{path.name} is empty")
    if len(table) != np.sum(results["confusion"]) or table[columns].isna().any(axis=None):
        raise ValueError(f"{path.name} lacks predictions")
    return table
