"""Commands that evaluate a run, choose its decision rule, or predict images with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from callbacks.errors import RunError
from callbacks.run_folder import RunFolder
from experiments.command_line.parser import CommandParser

# Runs are used with one process on this machine, even if they were trained on several.
ONE_PROCESS = (
    "--trainer.accelerator=auto",
    "--trainer.devices=1",
    "--trainer.num_nodes=1",
    "--trainer.strategy=auto",
    "--trainer.sync_batchnorm=false",
)
# Options of a test on another data set, with their types and meanings.
OTHER_DATA = (
    ("mapping", str, "classes of its labels: a CSV file, or a table in datamodules/mappings"),
    ("split", Literal["all", "test"], "images to score (default: its test split, if it has one)"),
    ("own", Path, "folder of the run's own data, if it has moved since training"),
    ("name", str, "name of the test (default: that of the folder)"),
)


def evaluate() -> None:
    parser = _parser(
        "Score a run on the test split, or on another data set: results.json and "
        "test_predictions.csv."
    )
    parser.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="best, or last for last_results.json (default: best)",
    )
    parser.add_argument("--on", type=Path | None, help="another data set to test the run on")
    for name, kind, meaning in OTHER_DATA:
        parser.add_argument(f"--{name}", type=kind | None, help=f"with --on: {meaning}")
    options, more = parser.parse()
    given = [name for name, *_ in OTHER_DATA if options[name] is not None]
    if options.on is None:
        if given:
            parser.error(f"--{given[0]} is for tests on other data sets: add --on FOLDER.")
        _apply("test", options.run, more, checkpoint=options.checkpoint)
        return
    if more or options.checkpoint != "best":
        parser.error("--on tests best.ckpt as it was trained: leave out other options of the run.")
    from experiments.command_line.failures import for_users
    from experiments.use.external import evaluate_on  # imports torch

    with for_users():
        evaluate_on(options.run, options.on, **{name: options[name] for name in given})


def decide() -> None:
    parser = _parser(
        "Choose a decision rule on the validation split and keep it with the run: decision.json. "
        "With --sets, choose prediction sets: sets.json. evaluate and predict then report both "
        "beside the probabilities."
    )
    parser.add_argument(
        "--rule",
        help="ArgMax, Sensitivity, LogitAdjustment, MinimumCost or an import path; its options "
        "are --trainer.callbacks.rule.OPTION (default: ArgMax; with --sets, --risk or --share the "
        "rule that the run has)",
    )
    parser.add_argument(
        "--sets",
        help="ClassConditional, Marginal, PrevalenceAdjusted or an import path (default: none)",
    )
    for name, meaning in (
        ("coverage", "target share of lesions whose set holds the true class (default: 0.9)"),
        ("risk", "abstain until at most this share of the decisions is wrong on validation"),
        ("share", "abstain from all but this share of the validation lesions"),
    ):
        parser.add_argument(f"--{name}", type=float | None, help=meaning)
    options, more = parser.parse()
    if options.coverage is not None and not options.sets:
        parser.error("--coverage is that of prediction sets: add --sets (SETS=ClassConditional).")
    asked = (options.sets, options.risk, options.share)
    given = {
        "rule": options.rule or ("ArgMax" if asked == (None, None, None) else None),
        "sets": options.sets,
        "sets.coverage": options.coverage,
        "max_risk": options.risk,
        "min_share": options.share,
    }
    chooser = ["--trainer.callbacks+=callbacks.ChooseDecision"]
    chooser += [f"--trainer.callbacks.{k}={v}" for k, v in given.items() if v is not None]
    _apply("validate", options.run, [*chooser, *more])


def predict() -> None:
    parser = _parser("Classify images: predictions.csv in the run folder.")
    parser.add_argument("--images", help="a folder, searched with its subfolders, or one image")
    parser.add_argument(
        "--overlays", action="store_true", help="also draw an attention map over each image"
    )
    parser.add_argument(
        "--format",
        choices=("isic",),
        help="also write isic_submission.csv, for task 3 of the ISIC 2018 challenge",
    )
    options, more = parser.parse()
    images = [f"--data.predict_folder={options.images}"] if options.images else []
    wanted = {"Overlays": options.overlays, "IsicSubmission": options.format == "isic"}
    added = [f"--trainer.callbacks+=callbacks.{name}" for name, on in wanted.items() if on]
    _apply("predict", options.run, [*images, *added, *more])


def recorded(run: Path, checkpoint: str = "best") -> Iterator[str]:
    """Arguments that restore a run as it was trained.

    Raises:
        RunError: The folder lacks the configuration or the checkpoint.
    """
    folder = RunFolder(run)
    folder.settings()  # refuses what cannot be read
    yield f"--config={folder.config}"
    yield f"--ckpt_path={folder.checkpoint(checkpoint)}"


def _parser(description: str) -> CommandParser:
    parser = CommandParser(description)
    parser.add_argument("run", type=Path, help="run folder, runs/<name>/seed<seed>")
    return parser


def _apply(command: str, run: Path, options: list[str], checkpoint: str = "best") -> None:
    try:
        arguments = list(recorded(run, checkpoint))
    except RunError as error:
        sys.exit(f"error: {error}")
    from experiments.command_line import cli  # imports torch, which errors and help do not need

    sys.argv = ["experiments", command, *arguments, *ONE_PROCESS, *options]
    cli.main()
