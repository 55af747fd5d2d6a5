"""The folder of a run: the names of its files, and what they hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from callbacks.errors import RunError, reason

if TYPE_CHECKING:
    import pandas as pd

CONFIG = "config.yaml"
BEST = "best.ckpt"
LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
METRICS = "metrics.jsonl"
SPLIT = "split.csv"
CLASSES = "classes.yaml"
RESULTS = "results.json"
TEST_PREDICTIONS = "test_predictions.csv"
FIDELITY = "test_fidelity.csv"
DECISION = "decision.json"
SETS = "sets.json"
PREDICTIONS = "predictions.csv"
ON = "on"  # folder of the tests on other data sets
OF_LAST_EPOCH = "last_"  # prefix of the files about a run's last epoch

TRAIN = "train it with `make train` until an epoch is validated"
RESTORE = "restore it from a copy, or save it as comma-separated values in UTF-8"
EVALUATE = "evaluate it with `python -m experiments evaluate {path}{option}`"
# Never numbers or missing, even if an id is 0012 or a class is called None.
TEXT_COLUMNS = ("image_id", "lesion_id", "dx", "split", "part", "decision", "set")
NOT_KNOWN = ("", "nan", "NaN", "NA", "N/A", "None", "null")  # in other columns
# As yaml.safe_load, a tenth of the time where PyYAML has libyaml.
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SEED = re.compile(r"seed(\d+)")


class RunFolder:
    """The folder of a run, ``runs/<name>/seed<seed>``.

    Constructing it reads nothing, so the folder may be missing or incomplete.

    Args:
        path: Path of the folder.

    Attributes:
        path: Path of the folder.
        config: Options of the run.
        best: Checkpoint of the best epoch by validation.
        last: Newest checkpoint, from which the run is resumed.
        metrics_file: All logged metrics, see :meth:`history`.
        split_file: Images of each split, see :meth:`split`.
        classes_file: Classes of the data set and what is known about them.
        fidelity_file: Fidelity of each compressed test image; written for codecs only.
        decision: Decision rule that was chosen on the validation split.
        sets: Thresholds of prediction sets that were chosen on the validation split.
        new_predictions: Predictions of ``predict`` for new images.

    Examples:
        >>> folder = RunFolder("runs/vgg_ce/seed0")
        >>> folder.name, folder.seed
        ('vgg_ce', 0)
        >>> folder.best
        PosixPath('runs/vgg_ce/seed0/best.ckpt')
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / CONFIG
        self.best = self.path / BEST
        self.last = self.path / LAST
        self.metrics_file = self.path / METRICS
        self.split_file = self.path / SPLIT
        self.classes_file = self.path / CLASSES
        self.fidelity_file = self.path / FIDELITY
        self.decision = self.path / DECISION
        self.sets = self.path / SETS
        self.new_predictions = self.path / PREDICTIONS

    @classmethod
    def of(cls, name: str, seed: int | str) -> Self:
        """The folder of a run below the working directory, by its name and seed."""
        return cls(Path("runs", name, f"seed{seed}"))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def name(self) -> str:
        """Name of the run, shared by all its seeds."""
        return self.path.absolute().parent.name

    @property
    def seed(self) -> int:
        """Seed of the run, from the folder's name or else from its options."""
        if named := SEED.fullmatch(self.path.absolute().name):
            return int(named[1])
        return int(self.settings()["seed_everything"])

    def results_file(self, last: bool = False) -> Path:
        """Path of the test results, of the best epoch or of the last one."""
        return self.path / f"{OF_LAST_EPOCH * last}{RESULTS}"

    def predictions_file(self, last: bool = False) -> Path:
        """Path of the test predictions, of the best epoch or of the last one."""
        return self.path / f"{OF_LAST_EPOCH * last}{TEST_PREDICTIONS}"

    def on(self, name: str) -> Self:
        """The folder of the test on another data set, with files as in the run folder."""
        return type(self)(self.path / ON / name)

    @property
    def tested_on(self) -> list[str]:
        """Names of the other data sets that the run was tested on."""
        return sorted(file.parent.name for file in self.path.glob(f"{ON}/*/{RESULTS}"))

    def checkpoint(self, name: str = "best") -> Path:
        """The checkpoint ``best`` or ``last``.

        Raises:
            RunError: The run has no such checkpoint.
        """
        file = self.path / f"{name}.ckpt"
        how = f"{TRAIN}, or score its last epoch with `make evaluate CKPT=last`"
        return self._existing(file, how if self.last.exists() else TRAIN)

    def settings(self) -> dict[str, Any]:
        """The options that the run was trained with.

        Raises:
            RunError: The run has not been trained, or its options cannot be read.
        """
        file = self._existing(self.config, TRAIN)
        try:
            settings = yaml.load(file.read_text("utf-8"), SAFE_LOADER)
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            settings = None
        if not isinstance(settings, dict):
            raise RunError(f"{self.config} cannot be read: restore it from a copy.")
        return settings

    def results(self, last: bool = False) -> dict[str, Any]:
        """The test results: metrics, classes, confusion matrix and more.

        Args:
            last: Whether to read the results of the last epoch instead of those of the best.

        Raises:
            RunError: The run has not been evaluated, or its results cannot be read.
        """
        file = self._existing(self.results_file(last), self._evaluate(last))
        try:
            results: dict[str, Any] = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(
                f"{file} cannot be read ({reason(error)}): {self._evaluate(last)}."
            ) from None
        return results

    def predictions(self, last: bool = False) -> pd.DataFrame:
        """One row per test image: its metadata and the probability ``p_<class>`` of each class.

        Args:
            last: Whether to read the predictions of the last epoch instead of those of the best.

        Raises:
            RunError: The run has not been evaluated, or its predictions cannot be read.
        """
        how = self._evaluate(last)
        return _table(self._existing(self.predictions_file(last), how), ["image_id", "dx"], how)

    def split(self) -> pd.DataFrame:
        """One row per image: ``image_id``, ``lesion_id``, ``dx`` and ``split``.

        Raises:
            RunError: The run has not been trained, or its split cannot be read.
        """
        columns = ["image_id", "lesion_id", "dx"]
        table = _table(self._existing(self.split_file, TRAIN), columns, RESTORE)
        return table.rename(columns={"part": "split"})  # the column's name up to 0.1.0

    def history(self) -> pd.DataFrame:
        """Metrics by step, as from :func:`callbacks.recording.metrics_file.read_history`.

        Raises:
            RunError: The run has not been trained.
        """
        from callbacks.recording.metrics_file import read_history

        return read_history(self._existing(self.metrics_file, TRAIN))

    def _evaluate(self, last: bool) -> str:
        return EVALUATE.format(path=self.path, option=" --checkpoint=last" if last else "")

    def _existing(self, file: Path, how: str) -> Path:
        if not self.path.is_dir():
            raise RunError(f"There is no run folder {self.path}: list the runs with `make status`.")
        if not file.exists():
            if seeds := sorted(folder for folder in self.path.glob("seed*") if folder.is_dir()):
                raise RunError(
                    f"{self.path} is the folder of several seeds: name one, such as {seeds[0]}."
                )
            raise RunError(f"{self.path} has no {file.name}: {how}.")
        return file


def _table(file: Path, columns: list[str], how: str) -> pd.DataFrame:
    """A table of a run, with ``how`` to get another one if it cannot be read."""
    try:
        table = read_csv(file)
        if missing := [name for name in columns if name not in table]:
            raise ValueError(f"it has no column {', '.join(missing)}")
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read ({reason(error)}): {how}.") from None
    return table


def read_csv(file: Path, types: Mapping[str, str] | None = None) -> pd.DataFrame:
    """A table of a run, whose ids and classes are text, empty where they are not known.

    Args:
        file: The table.
        types: Types of other columns.
    """
    import pandas as pd

    columns = pd.read_csv(file, nrows=0).columns
    text = dict.fromkeys((name for name in columns if name in TEXT_COLUMNS), "str")
    unknown = {name: NOT_KNOWN for name in columns if name not in TEXT_COLUMNS}
    known = {name: kind for name, kind in (types or {}).items() if name in columns}
    return pd.read_csv(file, dtype=text | known, keep_default_na=False, na_values=unknown)
