"""Submission of predictions to task 3 of the ISIC 2018 challenge."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pandas as pd
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.atomic_files import as_text, write_table
from callbacks.errors import RunError
from callbacks.recording.decision import Decision
from callbacks.recording.predictions import Predictions

CLASSES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
FILE = "isic_submission.csv"


class IsicSubmission(Predictions):
    """Write ``isic_submission.csv``, a submission to task 3 of the ISIC 2018 challenge.

    https://challenge.isic-archive.com/landing/2018/47

    A row is an image, named without its ending, with a confidence in [0, 1] for each class. The
    official score is the balanced accuracy of the most confident class, and metrics of a class
    count a confidence above 0.5 as positive. Confidences are those of :func:`confidence`.

    Images that cannot be read are left out, since no confidence would be a prediction. The official
    scorer refuses a submission without them.

    Args:
        dirpath: Run folder; set by the command line.
        output: File to write instead of ``isic_submission.csv`` in the run folder.
    """

    def __init__(self, dirpath: str = "", output: Path | None = None) -> None:
        super().__init__(dirpath, output or Path(dirpath) / FILE)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_predict_start(trainer, pl_module)
        names = self.data(trainer).class_names
        if set(names) != set(CLASSES):
            raise RunError(
                f"The ISIC 2018 challenge has the classes {', '.join(CLASSES)}, and this run has "
                f"{', '.join(names)}: choose a run with all seven, or leave out the format."
            )
        photos = self.photos(trainer)
        files = defaultdict(list)
        for file in photos.files:
            files[as_text(Path(file.stem))].append(as_text(file.relative_to(photos.folder)))
        for name, several in files.items():
            if len(several) > 1:
                raise RunError(
                    f"The ISIC 2018 challenge identifies images by their names without ending, and "
                    f"{name} is the name of {' and '.join(several)}: rename one of them."
                )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        table = pd.concat(self.rows, ignore_index=True)
        table = table[table["decision"] != "unreadable"]
        names = list(self.data(trainer).class_names)
        probability = torch.tensor(table[[f"p_{name}" for name in names]].to_numpy())
        decision = Decision.load(self.folder)
        confidences = pd.DataFrame(confidence(probability, decision).numpy(), columns=names)
        confidences = confidences[list(CLASSES)].rename(columns=str.upper)
        confidences.insert(0, "image", [Path(image).stem for image in table["image"]])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_table(self.path, confidences)
        print(f"{len(table)} rows in {self.path}, for task 3 of the ISIC 2018 challenge")
        if decision is not None:
            print("Its most confident classes follow the decision rule of this run.")
        photos = self.photos(trainer)
        if len(table) < len(photos):
            print(
                f"{len(photos) - len(table)} of {len(photos)} images are not in it, because they "
                "were not predicted or cannot be read. The official scorer refuses a file without "
                "an image of the test set: replace these images, and predict again."
            )


def confidence(probability: Tensor, decision: Decision | None) -> Tensor:
    """Confidences (B, K) in [0, 1] of which the largest is the decided class.

    Without a decision rule these are the probabilities (B, K) of the network. With a rule they are
    1 - r_k, where r_k is the expected cost of deciding class k, scaled so that the smallest cost of
    the rule is 0 and the largest 1. Unless the rule has costs, these are its probabilities, those
    of the network with the rule's temperature and offsets.
    """
    if decision is None:
        return probability
    costs = [cost for row in decision.costs or () for cost in row] or [0.0, 1.0]
    span = (max(costs) - min(costs)) or 1.0
    return (1 - (decision.expected_cost(probability) - min(costs)) / span).clamp(0, 1)
