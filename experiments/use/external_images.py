"""Images of another data set that a run can be tested on: mapped to its classes, and new to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from callbacks.errors import RunError
from datamodules import DataError
from datamodules.data_folder import DataFolder
from datamodules.errors import MAX_LISTED
from datamodules.labeled_images import open_folder
from datamodules.leaks import Leaks, find_leaks
from datamodules.mappings import map_labels
from experiments.use.trained import Run, classes_of


@dataclass(frozen=True)
class Selection:
    """Images of another data set to score, and those that were left out.

    Args:
        images: Rows of the other table, sorted by ``image_id``, with ``dx`` as the run's class and
            ``given`` as the label that the table has.
        split: ``test`` or ``all``.
        dropped: Number of images of each label that is not a class of the run.
        leaks: Images that the run has seen; ``images`` lacks those that are certain.
        classes: Classes of the run.
        mapping: Mapping from labels to classes, as given; None if labels are the classes' names.
    """

    images: pd.DataFrame
    split: str
    dropped: Mapping[str, int]
    leaks: Leaks
    classes: tuple[str, ...]
    mapping: str | None = None

    @property
    def leaked(self) -> dict[str, int]:
        """Number of images that were left out, by what they have in common with seen ones."""
        why = self.leaks.why
        return {str(name): int(n) for name, n in why[why != ""].value_counts().items()}

    @property
    def absent(self) -> list[str]:
        """Classes of the run that no image shows."""
        present = set(self.images["dx"])
        return [name for name in self.classes if name not in present]

    @property
    def near(self) -> set[str]:
        """Images that seem to show the same skin as an image that the run has seen."""
        return set(self.leaks.near["image_id"])

    def sentences(self) -> Iterator[str]:
        """Sentences on which images were scored and which were left out, and why."""
        if self.split == "test":
            yield "Only its test split was scored."
        if self.dropped:
            by_name = " by name" if self.mapping is None else ""
            yield (
                f"{sum(self.dropped.values()):,} images were left out because their labels are not "
                f"classes of the run{by_name}: {_counts(self.dropped)}."
            )
        if self.leaked:
            yield (
                f"{sum(self.leaked.values()):,} images were left out because the run was trained "
                f"or validated on them: {_counts(self.leaked)}."
            )
        yield from self.leaks.remarks
        if self.near:
            yield (
                f"{len(self.near):,} of the scored images seem to show the same skin as images "
                "that the run was trained or validated on."
            )
        if self.absent:
            yield (
                f"No image shows {', '.join(self.absent)}: recall is not defined there, and "
                f"balanced accuracy is the mean over {len(self.classes) - len(self.absent)} of "
                f"{len(self.classes)} classes."
            )


def select(
    run: Run,
    other: DataFolder,
    mapping: str | None = None,
    split: str | None = None,
    own: Path | None = None,
) -> Selection:
    """Choose the images of another data set that a run is tested on.

    Args:
        run: The run.
        other: The other data set.
        mapping: As for :func:`~datamodules.mappings.map_labels`.
        split: ``test`` for the images whose column ``split`` is ``test``, or ``all`` images. By
            default ``test`` if there are any, else ``all``.
        own: Data set of the run, if it is not where it was during training.

    Raises:
        RunError: No image is left, or there is no test split.
        DataError: The other data set cannot be read.
    """
    table = other.table
    test = table.get("given_split", pd.Series("", table.index)) == "test"
    if split == "test" and not test.any():
        raise RunError(f"{other.root} has no images whose column split is test: set --split=all.")
    split = split or ("test" if test.any() else "all")
    images = table[test] if split == "test" else table
    labels = [name for name in other.classes.names if (images["dx"] == name).any()]
    known = classes_of(run.folder).names
    classes = images["dx"].map(map_labels(labels, known, mapping))
    outside = ~classes.isin(run.class_names)
    counts = images.loc[outside, "dx"].value_counts()
    images = images.assign(given=images["dx"], dx=classes)[~outside]
    recorded = run.folder.split()
    seen = recorded[recorded["split"].isin(["train", "val"])]
    leaks = find_leaks(seen, _own(run, own), images, other)
    images = images[(leaks.why == "").to_numpy()].sort_values("image_id", ignore_index=True)
    dropped = {str(name): int(n) for name, n in counts.items()}
    selection = Selection(images, split, dropped, leaks, tuple(run.class_names), mapping)
    if images.empty:
        raise RunError(f"No image of {other.root} is left. {' '.join(selection.sentences())}")
    return selection


def _own(run: Run, own: Path | None) -> DataFolder | None:
    """The data set of a run, with its table; None if it is not there any more."""
    folder = open_folder(Path(own or run.folder.settings()["data"]["root"]).expanduser())
    try:
        present = bool(folder.file_names("image", folder.table).notna().any())
    except (DataError, OSError):
        if own is not None:
            raise
        return None
    return folder if present else None


def _counts(numbers: Mapping[str, int]) -> str:
    listed = [f"{name} {n:,}" for name, n in list(numbers.items())[:MAX_LISTED]]
    more = f" and {len(numbers) - MAX_LISTED} more" if len(numbers) > MAX_LISTED else ""
    return ", ".join(listed) + more
