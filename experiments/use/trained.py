"""Trained runs: for use from Python, and with their data for commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jsonargparse import ArgumentError
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LightningArgumentParser
from torch import nn

from callbacks.errors import RunError
from callbacks.recording.chosen import Chosen
from callbacks.recording.decision import Decision
from callbacks.run_folder import TRAIN, RunFolder
from callbacks.safety.checkpoint_io import load_state
from datamodules import Classes, LesionData
from datamodules.cache import resize
from datamodules.classes import HAM10000_CLASSES
from datamodules.lesion_dataset import channels_first
from datamodules.pixels import read_rgb, reason, to_rgb
from experiments.command_line.cli import (
    MEMBERS,
    ExperimentCLI,
    run_command,
)
from experiments.command_line.links import link_model_to_data
from experiments.command_line.options import without_initial_weights
from experiments.use.apply import ONE_PROCESS, recorded
from lightning_modules import Compression, Learner

Pixels = NDArray[np.uint8]
Photo = Pixels | Image.Image | str | Path


class Run:
    """A trained classifier with its best weights, on the CPU, in evaluation mode.

    Args:
        folder: Folder of the run.
        model: Trained LightningModule.
        class_names: Names of the K classes, in the order of the probabilities.
        size: Height and width of the images that the model takes, in pixels.
        batch_size: Number of images that are classified at once.
        step: Optimizer steps of the weights, for which prediction sets were chosen; None if
            unknown.

    Attributes:
        decision: Decision rule of the run, as chosen by ``make decide``; the most likely class if
            none was chosen.
        prediction_sets: Prediction sets of the run, as chosen by ``make decide``; None if none were
            chosen.
    """

    def __init__(
        self,
        folder: RunFolder,
        model: LightningModule,
        class_names: Sequence[str],
        size: int,
        batch_size: int = 32,
        step: int | None = None,
    ) -> None:
        self.folder = folder
        self.model = model.eval()
        self.class_names = list(class_names)
        self.size = size
        self.batch_size = batch_size
        self.step = step
        chosen = Chosen.load(folder.path, self.class_names, step)
        self.decision = chosen.decision or Decision(tuple(class_names))
        self.prediction_sets = chosen.sets

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r})"

    def probabilities(self, images: Pixels | Sequence[Photo]) -> NDArray[np.float32]:
        """Probabilities (N, K) of the classes, each row with sum 1.

        If a decision was chosen for the run, they are calibrated by its temperature, whereas
        ``make predict`` writes them uncalibrated.

        Args:
            images: RGB images, uint8 (N, H, W, 3), or a list of N images of any sizes, each an
                array (H, W, 3), an image of Pillow or the path of an image file. They are resized
                as by ``make predict``: the whole image, by area averaging.

        Raises:
            RunError: An image cannot be read, or is not an RGB image of 8 bits.
        """
        calibrated = self.decision.calibrated(self.uncalibrated(images))
        return calibrated.float().numpy()

    def decide(self, images: Pixels | Sequence[Photo]) -> list[str]:
        """Names of the decided classes, by the decision rule of the run.

        Args:
            images: As for :meth:`probabilities`.
        """
        decided = self.decision(self.uncalibrated(images))
        return [self.class_names[c] for c in decided.tolist()]

    def confident(self, images: Pixels | Sequence[Photo]) -> list[bool]:
        """Whether the decision of each image is made; elsewhere the rule of the run abstains.

        Always True if no threshold was chosen (``make decide RISK=0.1`` or ``SHARE=0.8``).

        Args:
            images: As for :meth:`probabilities`.
        """
        confident: list[bool] = self.decision.confident(self.uncalibrated(images)).tolist()
        return confident

    def sets(self, images: Pixels | Sequence[Photo]) -> list[list[str]]:
        """Prediction set of each image, as class names; empty if no class is likely enough.

        Args:
            images: As for :meth:`probabilities`.

        Raises:
            RunError: No prediction sets were chosen for the run.
        """
        if self.prediction_sets is None:
            raise RunError(
                f"{self.folder.path} has no {self.folder.sets.name}: choose prediction sets with "
                "`make decide SETS=ClassConditional`."
            )
        return [names.split() for names in self.prediction_sets.names(self.uncalibrated(images))]

    @torch.no_grad()
    def uncalibrated(self, images: Pixels | Sequence[Photo]) -> torch.Tensor:
        """Probabilities (N, K) as ``make predict`` writes them, on the CPU.

        Args:
            images: As for :meth:`probabilities`.
        """
        if isinstance(images, str | Path | Image.Image):
            raise RunError("This is a single image: put it into a list, [image].")
        probabilities = [torch.empty(0, len(self.class_names))]
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            resized = np.stack([resize(to_pixels(image), self.size) for image in part])
            pixels = channels_first(torch.from_numpy(resized)).to(self.model.device)
            batch = {"image": pixels.float().div_(255)}
            probabilities.append(self.model.predict_step(batch, 0).cpu())
        return torch.cat(probabilities)


def to_pixels(image: Photo) -> Pixels:
    """An image as an array (H, W, 3), uint8.

    Raises:
        RunError: The image cannot be read, or is not an RGB image of 8 bits.
    """
    if isinstance(image, str | Path | Image.Image):
        path = Path(getattr(image, "filename", "") if isinstance(image, Image.Image) else image)
        try:
            return to_rgb(image) if isinstance(image, Image.Image) else read_rgb(path.expanduser())
        except Exception as error:  # Pillow raises half a dozen types for damaged files
            raise RunError(
                f"{image} cannot be read ({reason(path, error)}): leave it out, or replace it."
            ) from None
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise RunError(
            f"An image is an array {pixels.shape} of {pixels.dtype}: give RGB images (H, W, 3) of "
            "uint8, in a list or stacked to (N, H, W, 3)."
        )
    return np.ascontiguousarray(pixels)


def load(folder: str | Path) -> Run:
    """Load a trained classifier from its run folder; the data set need not be installed.

    Neither the global random state nor any file is changed.

    Args:
        folder: The run folder, ``runs/<name>/seed<seed>``.

    Raises:
        RunError: The folder lacks a file of a trained run, or the run has no classes to predict.

    Examples:
        >>> run = load("runs/vgg_ce/seed0")  # doctest: +SKIP
        >>> run.probabilities(["photo.jpg"]).shape  # doctest: +SKIP
        (1, 7)
    """
    run = RunFolder(Path(folder).expanduser())
    settings = run.settings()
    if (run.path / MEMBERS).exists():
        raise RunError(f"{run.path} is an ensemble: load its members, listed in {MEMBERS}.")
    if not run.best.exists():
        raise RunError(f"{run.path} has no {run.best.name}: {TRAIN}.")
    data, model = build(settings, run.split(), classes_of(run))
    _require_classifier(run.path, model)
    state = load_state(run.best)
    try:
        model.load_state_dict(state["state_dict"])
    except RuntimeError:
        raise RunError(
            f"{run.best} does not fit the model of {run.config.name}: use the commit that trained "
            "the run."
        ) from None
    return Run(run, model, data.class_names, data.size, data.batch_size, state["global_step"])


def classes_of(run: RunFolder) -> Classes:
    """The classes of a run's data set; older runs recorded none and had HAM10000's."""
    return Classes.read(run.classes_file) if run.classes_file.exists() else HAM10000_CLASSES


def build(
    settings: Mapping[str, Any], split: pd.DataFrame, known: Classes
) -> tuple[LesionData, LightningModule]:
    """The model of a run before training, with the classes and counts of its split.

    Args:
        settings: Options of the run.
        split: Images of the run, as recorded in its ``split.csv``.
        known: Classes of its data set.

    Returns:
        The datamodule, which has no images, and the model.
    """

    class RecordedData(LesionData):
        classes = known

        @cached_property
        def table(self) -> pd.DataFrame:
            return split

    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(RecordedData, "data")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    link_model_to_data(parser)
    try:
        config = parser.parse_object({"data": settings["data"], "model": settings["model"]})
    except ArgumentError as error:
        raise RunError(
            f"These options are unknown to this version of the code "
            f"({' '.join(str(error).split())}): use the commit that trained the run."
        ) from error
    without_initial_weights(config.model)
    with torch.random.fork_rng(devices=[]):
        built = parser.instantiate(config)
    return built.data, built.model


def _require_classifier(folder: Path, model: nn.Module) -> None:
    if isinstance(model, Learner) and not model.diagnoses:
        what = "a codec" if isinstance(model, Compression) else "an encoder"
        raise RunError(f"{folder} trained {what}, which has no classes: use a classifier's run.")


class Restored(ExperimentCLI):
    """The command line of ``predict`` up to where prediction would start."""

    def predict(self, **_: Any) -> None:
        model: nn.Module = self.model
        model.load_state_dict(load_state(self.config_init["predict"]["ckpt_path"])["state_dict"])
        model.eval()


def restore(folder: Path, *options: str) -> Restored:
    """A trained classifier with its best weights, on the CPU, and its data, which are installed.

    Args:
        folder: The run folder.
        *options: Options besides those that the run recorded.

    Raises:
        RunError: The folder lacks a file of a trained run, or the run has no classes.
    """
    arguments = ["predict", *recorded(folder), "--trainer.logger=false", *ONE_PROCESS, *options]
    cli = run_command(arguments, Restored)
    assert isinstance(cli, Restored)
    _require_classifier(folder, cli.model)
    return cli
