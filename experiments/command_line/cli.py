"""Lightning's commands: ``python -m experiments fit|validate|test|predict --config FILE``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import yaml
from filelock import FileLock, Timeout
from jsonargparse import Namespace
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger

import datamodules
import lightning_modules
from callbacks.errors import RunError
from callbacks.recording.history import History
from callbacks.recording.log_config import LogConfig, refuse_changes
from callbacks.run_callback import RunCallback
from callbacks.run_folder import RunFolder
from callbacks.safety.ending import Ending, ended
from callbacks.safety.finite_loss import FiniteLoss
from callbacks.safety.moved import Moved
from callbacks.safety.preemption import Preemption
from callbacks.safety.progress import epochs_done, reached
from datamodules import LesionData
from experiments.command_line.failures import for_users
from experiments.command_line.links import link_model_to_data
from experiments.command_line.mistakes import clarified
from experiments.command_line.options import (
    refuse_training,
    refuse_values,
    without_initial_weights,
)
from experiments.command_line.ranges import refuse_out_of_range
from experiments.recipes import BASE, layered
from experiments.running.place import moved_from, refuse_contradictions, run_dir, run_group, run_id
from experiments.running.resume import resume_from

DEFAULTS = {"default_config_files": [str(BASE)]}
MEMBERS = "members.txt"  # lists the runs of an ensemble, in place of a checkpoint
COMMANDS = ("fit", "validate", "test", "predict")
# Options may name a class without its module, and the help page lists all classes.
for package in (datamodules, lightning_modules):
    for name in package.__all__:
        getattr(package, name)
# Parsers by the commands that they know, with what Lightning keeps beside them. A parser depends on
# nothing else and takes a quarter of a second for each command.
PARSERS: dict[tuple[str, ...], dict[str, Any]] = {}


class Parser(LightningArgumentParser):
    """Report errors in one sentence, with the nearest option; accept no abbreviations."""

    described: type | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, allow_abbrev=False)

    def add_class_arguments(
        self, theclass: type, nested_key: str | None = None, *args: Any, **kwargs: Any
    ) -> list[str]:
        """Add options and remember the class, because error messages name it."""
        if nested_key is None:
            self.described = theclass
        return super().add_class_arguments(theclass, nested_key, *args, **kwargs)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *more: Any, **options: Any
    ) -> Namespace:
        """Parse arguments, with ``None`` as another word for ``null``.

        jsonargparse passes a null on as ``None`` to the parsers of nested classes, which would take
        it for a text or a path.
        """
        given = sys.argv[1:] if args is None else args
        words = [f"{word[:-4]}null" if word.endswith("=None") else word for word in given]
        parsed: Namespace = super().parse_args(words, *more, **options)
        return parsed

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        # Exits even where jsonargparse would pass the error to an outer parser, whose message is
        # longer and does not name the option.
        sys.stderr.write(f"error: {clarified(self, message, self.described)}\n")
        sys.exit(2)


class ExperimentCLI(LightningCLI):
    """Lightning's command line; names each run once and links the model to the data.

    Args:
        commands: Commands whose options are known.
        **options: Options of ``LightningCLI``.
    """

    def __init__(self, commands: tuple[str, ...] = COMMANDS, **options: Any) -> None:
        self.commands = commands
        super().__init__(parser_kwargs=dict.fromkeys(commands, DEFAULTS), **options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        return {name: LightningCLI.subcommands()[name] for name in self.commands}

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Build the parser, or take the one that this process built before."""
        if self.commands not in PARSERS:
            before = set(vars(self))
            super().setup_parser(*args, **kwargs)
            PARSERS[self.commands] = {k: v for k, v in vars(self).items() if k not in before}
        vars(self).update(PARSERS[self.commands])

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--name", type=str, default="dev", help="Name of the run, in the folder runs/<name>/."
        )
        # Not in base.yaml, because a recipe may replace its list of callbacks.
        parser.add_lightning_class_args(Preemption, "preemption")
        parser.add_lightning_class_args(FiniteLoss, "finite_loss")

        parser.link_arguments("seed_everything", "data.seed")
        link_model_to_data(parser)

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Link the run folder to every callback and logger that writes to it."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        # Training may start from another run's checkpoint; other commands use that of their run.
        run = ("name", "seed_everything", *(["ckpt_path"] if subcommand != "fit" else []))
        for target, place in (
            ("trainer.default_root_dir", run_dir),
            ("trainer.callbacks.init_args.dirpath", run_dir),
            ("trainer.logger.init_args.save_dir", run_dir),
            ("trainer.logger.init_args.id", run_id),
            ("trainer.logger.init_args.name", run_id),
            ("trainer.logger.init_args.group", run_group),
            ("preemption.dirpath", run_dir),
            ("finite_loss.dirpath", run_dir),
        ):
            parser.link_arguments(run, target, compute_fn=place)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = self._parsed(parser, list(layered(args)))
        options = self.config[self.config.subcommand]
        refuse_values(options)
        if self.config.subcommand == "fit":
            refuse_training(options)
        else:
            refuse_contradictions(options)
            refuse_out_of_range(
                {"trainer": {"callbacks": options.as_dict()["trainer"]["callbacks"]}}
            )
            if options.ckpt_path:
                without_initial_weights(options.model)

    def _parsed(self, parser: LightningArgumentParser, args: list[str]) -> Namespace:
        """Options by command, as of the parser of all commands, which parses them twice."""
        command = args[0] if args else ""
        if command not in self._subcommand_parsers or any("print_config" in arg for arg in args):
            return parser.parse_args(args)
        options = self._subcommand_parsers[command].parse_args(args[1:])
        return Namespace({"config": None, "subcommand": command, command: options})

    def _parse_ckpt_path(self) -> None:
        """Build from config.yaml, not from the classes in a checkpoint, as Lightning would."""

    def before_validate(self) -> None:
        self._before_use("validate")

    def before_test(self) -> None:
        self._before_use("test")

    def before_predict(self) -> None:
        self._before_use("predict")

    def _before_use(self, command: str) -> None:
        options, folder = self.config_init[command], Path(self.trainer.default_root_dir)
        if (folder / MEMBERS).exists():
            raise RunError(f"{folder} is an ensemble: evaluate it or predict with `make ensemble`.")
        if (before := moved_from(folder)) and self.trainer.is_global_zero:
            print(f"{folder} was trained as {before}. Results are written to {folder}.")
        options["weights_only"] = True
        if "verbose" in options:
            options["verbose"] = False  # Lightning's table of all metrics; PerClass prints ours

    def before_fit(self) -> None:
        """Resume the run from its latest checkpoint; if it is finished, report this and exit."""
        fit, folder = self.config_init["fit"], Path(self.trainer.default_root_dir)
        fit["weights_only"] = True
        if fit["trainer"].fast_dev_run:
            return
        self._refuse_no_batches()
        resumable = resume_from(folder, self.trainer.accumulate_grad_batches)
        if resumable is None:
            return  # without a checkpoint, changed options cannot invalidate anything
        if (record := RunFolder(folder).config).exists():
            now = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))["fit"]
            refuse_changes(record, now)
        if fit["ckpt_path"]:
            return
        path, checkpoint = resumable
        epochs, steps = epochs_done(checkpoint), checkpoint["global_step"]
        limit = reached(checkpoint, self.trainer.max_epochs, self.trainer.max_steps)
        if (end := limit or ended(checkpoint, self.trainer)) is not None:
            more = (
                f"with a larger --trainer.{limit}" if limit else "without it or with a larger limit"
            )
            score = "it with `make evaluate`"
            if not RunFolder(folder).best.exists():  # it was never validated
                score = "its last epoch with `make evaluate CKPT=last`"
            print(
                f"{folder} is finished: {epochs} epochs, {steps} steps, ended by {end}. Evaluate "
                f"{score}, or continue training {more}."
            )
            sys.exit(0)
        print(f"Resuming from {path}: {epochs} epochs, {steps} steps.")
        # Not an argument of Trainer.fit, which WarmStart would not see before it loads weights.
        self.trainer.ckpt_path = str(path)

    def _refuse_no_batches(self) -> None:
        limit, batches = self.trainer.limit_train_batches, self.datamodule.batches_per_epoch
        if (limit if isinstance(limit, int) else int(batches * limit)) < 1:
            raise RunError(
                f"--trainer.limit_train_batches={limit} leaves none of the {batches} batches of "
                "an epoch: set at least 1 batch, or a larger fraction."
            )

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Add the run's own metrics file to whatever loggers are configured."""
        loggers = config["logger"] if isinstance(config["logger"], list) else [config["logger"]]
        if self.subcommand == "fit" and not any(isinstance(logger, History) for logger in loggers):
            others = [logger for logger in loggers if isinstance(logger, Logger)]
            config["logger"] = [History(config["default_root_dir"]), *others]
        trainer: Trainer = super()._instantiate_trainer(config, [*callbacks, Ending(), Moved()])
        return trainer

    def fit(self, **kwargs: Any) -> None:
        """Train, unless another process is training the same run."""
        folder = Path(self.trainer.default_root_dir)
        if RunCallback.is_trial(self.trainer):
            self.trainer.fit(**kwargs)
            return
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        try:
            with lock if self.trainer.is_global_zero else nullcontext():
                self.trainer.fit(**kwargs)
        except Timeout:
            raise RunError(
                f"Another process is training {folder}: wait for it to finish, or give this run "
                "another --name."
            ) from None


def run_command(
    args: Sequence[str] | None = None, cli: type[ExperimentCLI] = ExperimentCLI
) -> ExperimentCLI:
    """Parse ``args`` on top of ``recipes/base.yaml``, build the experiment and run it."""
    given = list(sys.argv[1:] if args is None else args)
    named = tuple(command for command in COMMANDS if command in given[:1])
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(no_advertisement)
    return cli(
        named or COMMANDS,  # all, for the help page and the errors that list them
        model_class=LightningModule,
        datamodule_class=LesionData,
        subclass_mode_model=True,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,  # options are in config.yaml, state in checkpoints
        seed_everything_default=0,
        parser_class=Parser,
        save_config_callback=LogConfig,
        save_config_kwargs={"save_to_log_dir": False},  # LogConfig writes config.yaml itself
        args=given,
    )


def no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()


def main() -> None:
    """Run the command line; report errors that users can fix in one sentence."""
    with for_users():
        run_command()
