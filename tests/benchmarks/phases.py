"""Where the time of a training step goes: ``make bench ARGS=phases``."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from contextlib import chdir
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from experiments.command_line.cli import run_command
from tests.benchmarks.processes import COMMON, RECIPES

if TYPE_CHECKING:
    from tests.benchmarks.loading import Data

WARM_UP, STEPS = 5, 35  # in all, of which those in the middle of an epoch count


def bench_phases(data: Data) -> list[dict]:
    """Mean milliseconds of each part of a step, without what happens between epochs."""
    rows = []
    for recipe, options in RECIPES.items():
        command = ["fit", f"--config={recipe}", f"--data.root={data.small}", *COMMON, *options]
        command += [f"--trainer.max_steps={STEPS}", "--trainer.max_epochs=-1"]
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            cli = run_command([*command, f"--trainer.callbacks+={__name__}.Phases"])
        (phases,) = (c for c in cli.trainer.callbacks if isinstance(c, Phases))
        rows += phases.rows(recipe)
    return rows


class Phases(Callback):
    """Measure the parts of training steps that are neither the first nor the last of an epoch."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.steps = 0
        self.step: Counter[str] = Counter()  # the current one
        self.since = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if encode := getattr(pl_module, "encode", None):  # a contrastive method
            pl_module.encode = self.timed(
                encode, lambda network: "query" if network is pl_module.network else "key"
            )
        if isinstance(mix := getattr(pl_module, "mix", None), nn.Module):
            mix.forward = self.timed(mix.forward, lambda *_: "mixing")

    def timed(self, function: Any, name: Any) -> Any:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            found = function(*arguments)
            self.step[f"forward: {name(arguments[0])}"] += time.perf_counter() - start
            return found

        return call

    def end(self, phase: str) -> None:
        """Count the time since the last phase."""
        now = time.perf_counter()
        self.step[phase] += now - self.since
        self.since = now

    def on_train_batch_start(self, *_: Any) -> None:
        self.end("batch")

    def on_before_backward(self, *_: Any) -> None:
        self.end("forward")

    def on_after_backward(self, *_: Any) -> None:
        self.end("backward")

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, _: Any, __: Any, batch_idx: int
    ) -> None:
        self.end("update")
        inner = 0 < batch_idx < trainer.num_training_batches - 1
        if inner and trainer.global_step > WARM_UP:
            self.seconds += self.step
            self.steps += 1
        self.step.clear()

    def rows(self, recipe: str) -> list[dict]:
        phases = ("batch", "forward", "forward: query", "forward: key", "forward: mixing")
        phases += ("backward", "update")
        whole = sum(self.seconds[phase] for phase in phases if ":" not in phase)
        return [
            {
                "recipe": recipe,
                "phase": phase,
                "ms": round(1000 * self.seconds[phase] / self.steps, 1),
                "share": round(self.seconds[phase] / whole, 3),
            }
            for phase in phases
            if phase in self.seconds
        ]
