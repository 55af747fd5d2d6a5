"""The command of ``make gpu``: tests, measurements and studies within a number of minutes."""

import json
import os
import platform
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from callbacks.atomic_files import write_text
from datamodules.errors import DataError
from datamodules.metadata import read_table
from experiments.command_line.parser import CommandParser
from lightning_modules.errors import ModelError
from lightning_modules.networks.weights import locate
from tests.gpu.budget import GRACE_SECONDS, ROOT, STOPPED, Budget, execute
from tests.gpu.report import report
from tests.gpu.studies import Progress, write_study

RECIPES = "vgg_ce spmix paco bcl finetune_ce"
STUDIES = "finetune spmix_pretrained"
PACKAGE = "efficientnet_lite0"
# Shares of the minutes after which tests and measurements are stopped; studies have the rest.
TESTS, STEPS = 0.2, 0.55
RECIPE_SECONDS = 240.0
MAX_SEEDS = 10


class Session:
    """What is done within a budget, and recorded in a folder after every part.

    Parts that the folder has from an earlier session are kept.

    Args:
        options: Options of the command line.
        more: Options of all runs.
    """

    def __init__(self, options: Any, more: list[str]) -> None:
        self.options = options
        self.device: str = options.device
        self.out = Path(options.out).resolve()
        self.budget = Budget(options.minutes)
        self.out.mkdir(parents=True, exist_ok=True)
        self.file = self.out / "measurements.json"
        self.record: dict[str, Any] = {}
        if self.file.exists():
            self.record = json.loads(self.file.read_text())
        self.record["machine"] = machine(self.device)
        self.more = [f"--data.root={Path(options.data).resolve()}", *more]

    def save(self) -> None:
        write_text(self.file, json.dumps(self.record, indent=1))
        write_text(self.out / "report.md", report(self.record))

    def test(self) -> None:
        """Run the tests marked ``gpu``."""
        if self.record.get("tests", {}).get("code") == 0:
            return
        log = self.out / "tests.txt"
        arguments = ["-m", "gpu", "-rs", f"--device={self.device}", "-k", self.options.tests]
        folder = str(ROOT / "tests" / "gpu")
        code = execute("pytest", [*arguments, folder], ROOT, log, self.budget.left(TESTS))
        lines = log.read_text(errors="replace").splitlines()
        summary = "stopped, the time was up" if code == STOPPED else "".join(lines[-1:])
        self.record["tests"] = {"code": code, "summary": summary.strip("= ")}
        self.save()
        self.tell(f"tests: {summary}")

    def measure(self, recipe: str) -> None:
        """Measure a recipe's step in a process of its own."""
        steps = self.record.setdefault("steps", {})
        seconds = min(self.budget.left(STEPS), RECIPE_SECONDS)
        if seconds <= 0 or (recipe in steps and "failed" not in steps[recipe]):
            return
        log, file = self.out / "steps.txt", self.out / f"{recipe}.json"
        arguments = [recipe, f"--device={self.device}", f"--steps={self.options.steps}"]
        arguments += [f"--json={file}", *self.more]
        code = execute("tests.gpu.steps", arguments, self.out, log, seconds)
        if code == 0:
            steps[recipe] = json.loads(file.read_text())
        else:
            said = log.read_text(errors="replace").splitlines()[-1:]
            steps[recipe] = {"failed": "the time was up" if code == STOPPED else "".join(said)}
        file.unlink(missing_ok=True)
        self.save()
        self.tell(f"{recipe}: {steps[recipe].get('failed', 'measured')}")

    def train(self) -> None:
        """Train the studies seed by seed, until the time is up."""
        names, rows = self.options.studies.split(), self.options.rows.split()
        for seeds in range(1, self.options.seeds + 1):
            for name in names:
                weights = self.options.weights and str(Path(self.options.weights).resolve())
                study = write_study(name, self.out, seeds, weights, self.options.size, rows)
                self.complete(study)
                if self.seconds <= 0:
                    return

    def complete(self, study: Path) -> None:
        arguments = ["study", study.name, "--jobs", str(self.options.jobs)]
        arguments += ["--trainer.logger=callbacks.History", *self.more]
        arguments += [f"--trainer.accelerator={'gpu' if self.device == 'cuda' else self.device}"]
        log = self.out / f"{study.stem}.txt"
        execute("experiments", arguments, self.out, log, self.seconds)
        text = Progress(study).keep()
        self.record.setdefault("studies", {})[study.stem] = text
        self.save()
        self.tell(f"{study.stem}: {text.splitlines()[0]}")

    def end(self) -> None:
        """Say where everything is, and exit with an error if a part failed."""
        print(f"Everything is in {self.out}; to carry away, leave out {self.out}/runs.")
        failed = [name for name, found in self.record.get("steps", {}).items() if "failed" in found]
        if self.record["tests"]["code"]:
            failed.insert(0, "tests")
        if failed:
            sys.exit(f"error: {', '.join(failed)} failed or had too little time: see report.md.")

    @property
    def seconds(self) -> float:
        """Time until the studies must stop, so that their runs can save checkpoints."""
        return self.budget.left() - GRACE_SECONDS

    def tell(self, text: str) -> None:
        print(f"{self.budget.left() / 60:5.1f} minutes left, {text}", flush=True)


def machine(device: str) -> dict[str, str]:
    cuda = device == "cuda"
    name = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
    return {
        "device": name,
        "cores": str(os.cpu_count()),
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}",
        "python": platform.python_version(),
        "time": f"{datetime.now():%Y-%m-%d %H:%M}",
    }


def check(options: Any) -> None:
    """Refuse a start that would fail after minutes."""
    try:
        if options.device == "cuda" and not torch.cuda.is_available():
            raise ModelError("There is no CUDA device: for a trial, add ARGS=--device=cpu.")
        read_table(Path(options.data))
        locate(options.weights or PACKAGE)
    except (DataError, ModelError) as error:
        sys.exit(f"error: {error}")


def parser() -> CommandParser:
    cores = os.cpu_count() or 1
    parser = CommandParser(
        "Run the tests of a GPU, measure training steps, and train studies at 224 pixels, seed by "
        "seed, until the time is up. The same command continues where it stopped. Options with a "
        "dot are given to every run."
    )
    parser.add_argument("--data", required=True, help="folder of HAM10000")
    parser.add_argument("--weights", help=f"file of {PACKAGE}'s weights; by default the package")
    parser.add_argument("--minutes", type=float, default=25, help="time for everything")
    parser.add_argument("--out", default="gpu", help="folder to write")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tests", default="", help="names of tests, as pytest's -k; else all")
    parser.add_argument("--recipes", default=RECIPES, help="recipes to measure")
    parser.add_argument("--steps", type=int, default=30, help="steps of a measurement")
    parser.add_argument("--studies", default=STUDIES, help="studies to train")
    parser.add_argument("--rows", default="", help="rows of the studies; all if none is named")
    parser.add_argument("--seeds", type=int, default=MAX_SEEDS, help="seeds at most")
    parser.add_argument("--size", type=int, default=224, help="pixels of the studies' images")
    parser.add_argument("--jobs", type=int, default=max(1, cores // 4), help="runs at a time")
    return parser


def main() -> None:
    options, more = parser().parse()
    check(options)
    session = Session(options, more)
    session.save()
    session.test()
    for recipe in options.recipes.split():
        session.measure(recipe)
    session.train()
    session.end()
