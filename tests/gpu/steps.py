"""Speed and memory of a recipe's training step: ``python -m tests.gpu.steps RECIPE``."""

import argparse
import copy
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from callbacks.atomic_files import write_text
from callbacks.errors import reason
from callbacks.recording.resources import peak_memory
from datamodules import HAM10000
from datamodules.loader import to_floats
from datamodules.saliency import fine_grained_saliency
from experiments.command_line.cli import run_command
from experiments.recipes import read
from lightning_modules import SPMix
from lightning_modules.batches import views
from lightning_modules.learner import Learner
from lightning_modules.mixes.spmix import blend

Batch = dict[str, Tensor]
ROUNDS = 5


class Variant(NamedTuple):
    """A way to compute a step."""

    memory_format: torch.memory_format = torch.channels_last
    bf16: bool = False
    compiled: bool = False


# The first is what the others are compared with; channels last is the project's default.
VARIANTS = {
    "float32": Variant(torch.contiguous_format),
    "channels last": Variant(),
    "channels last, bf16": Variant(bf16=True),
    "channels last, compile": Variant(compiled=True),
    "channels last, bf16, compile": Variant(bf16=True, compiled=True),
}


def build(recipe: str, device: torch.device, options: list[str]) -> tuple[Learner, HAM10000]:
    """Module and data of a recipe with random weights, after one step of the Trainer."""
    network = read(recipe)["model"]["init_args"]["network"]["init_args"]
    at = "model.network.encoder" if "encoder" in network else "model.network"
    cli = run_command(
        [
            "fit",
            f"--config={recipe}",
            f"--{at}.pretrained=false",
            f"--trainer.accelerator={'gpu' if device.type == 'cuda' else device.type}",
            "--trainer.logger=callbacks.History",
            "--trainer.fast_dev_run=true",
            "--trainer.enable_progress_bar=false",
            *options,
        ]
    )
    module = cli.model.to(device).train()
    module._trainer = None  # which is finished
    module.make_scheduler = None
    module.log = lambda *_, **__: None
    return module, cli.datamodule


def measure(recipe: str, device: torch.device, steps: int, options: list[str]) -> dict[str, Any]:
    """Rates, memory, waiting and variants of a recipe, as a record for JSON."""
    module, data = build(recipe, device, options)
    found: dict[str, Any] = {"size": data.size, "batch size": data.batch_size}
    found |= from_files(copy.deepcopy(module), data, device, steps)
    batch = augmented(data, next(batches(data)), device)
    found["variants"] = {}
    for name, variant in VARIANTS.items():
        try:
            row = computed(copy.deepcopy(module), batch, variant, device, steps)
        except Exception as error:  # of the compiler, or out of memory: the others are measured
            row = {"failed": f"{type(error).__name__}: {reason(error)}"}
        found["variants"][name] = row
    plain = found["variants"]["float32"]
    for row in found["variants"].values():
        if "images/s" in row and "images/s" in plain:
            row["ratio"] = round(row["images/s"] / plain["images/s"], 2)
    if isinstance(module, SPMix):
        seconds = data.batch_size / found["images/s"]
        found["shares"] = {
            name: round(own / seconds, 4)
            for name, own in mixing(module, data, batch, device).items()
        }
    return found


def from_files(
    module: Learner, data: HAM10000, device: torch.device, steps: int
) -> dict[str, float]:
    """Steps in float32 on batches of the loader; the shares are of their time."""
    optimizer, served = optimizer_of(module), batches(data)
    waited, transformed, start = 0.0, 0.0, 0.0
    reset_memory(device)
    for number in range(-3, steps):  # the first ones start workers and choose algorithms
        if number == 0:
            waited, transformed, start = 0.0, 0.0, now(device)
        before = perf_counter()
        images = next(served)
        waited += perf_counter() - before
        batch, seconds = timed(lambda images=images: augmented(data, images, device), device)
        transformed += seconds
        step(optimizer, batch, module.training_step)
        now(device)
    whole = now(device) - start
    return {
        "images/s": round(steps * data.batch_size / whole, 1),
        "memory, GB": round(peak_memory(device) / 1e9, 2),
        "waiting for data": round(waited / whole, 3),
        "transfer and augmentation": round(transformed / whole, 3),
    }


def computed(
    module: Learner, batch: Batch, variant: Variant, device: torch.device, steps: int
) -> dict[str, float]:
    """Steps on one batch that is on the device: median rate, memory, and time of the first step."""
    module.network.to(memory_format=variant.memory_format)
    optimizer = optimizer_of(module)
    training_step: Callable[..., Tensor] = module.training_step
    if variant.compiled:  # a compiler for the CPU is not what this measures
        backend = "inductor" if device.type == "cuda" else "eager"
        torch.compiler.reset()
        training_step = torch.compile(training_step, backend=backend)

    def forward(*args: Any) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=variant.bf16):
            return training_step(*args)

    def run(number: int) -> None:
        for _ in range(number):
            step(optimizer, batch, forward)

    reset_memory(device)
    first = timed(lambda: run(1), device)[1]
    run(2)
    rounds = [timed(lambda: run(steps), device)[1] for _ in range(ROUNDS)]
    images = steps * len(batch["label"])
    return {
        "images/s": round(images / statistics.median(rounds), 1),
        "memory, GB": round(peak_memory(device) / 1e9, 2),
        "first step, s": round(first, 2),
    }


def mixing(module: SPMix, data: HAM10000, batch: Batch, device: torch.device) -> dict[str, float]:
    """Seconds that a step spends on mixing, and on saliency if that is not read from the cache."""
    pair, encoder = views(batch, 2, check=True), module.network.encoder
    chosen = torch.ones(len(pair[0]["label"]) // 2, dtype=torch.bool, device=device)
    with torch.no_grad():
        ratios = [module.with_ratio(view, chosen)["ratio"] for view in pair]
        tokens = encoder.tokens(pair[0]["image"])
    files = {k: v.to(device) for k, v in next(batches(data)).items()}
    floats = to_floats(files)
    bare = {key: value for key, value in floats.items() if key not in data.maps}

    def mixed() -> None:
        for view, ratio in zip(pair, ratios, strict=True):
            module.with_ratio(view, chosen)
            blend(tokens, ratio.flatten(1)[:, :, None])

    def seconds(work: Callable[[], Any]) -> float:
        return statistics.median(timed(work, device)[1] for _ in range(ROUNDS))

    transform = data.train_transform
    warped = seconds(lambda: transform(dict(floats))) - seconds(lambda: transform(dict(bare)))
    return {
        "mixing": seconds(mixed),
        "views of the saliency": max(warped, 0.0),
        "saliency, if computed in the step": seconds(lambda: fine_grained_saliency(files["image"])),
    }


def step(
    optimizer: torch.optim.Optimizer, batch: Batch, training_step: Callable[..., Tensor]
) -> None:
    optimizer.zero_grad()
    training_step(batch, 1).backward()
    optimizer.step()


def optimizer_of(module: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer, which moves the key network if there is one."""
    configured = module.configure_optimizers()
    return configured["optimizer"] if isinstance(configured, dict) else configured


def batches(data: HAM10000) -> Iterator[Batch]:
    """Training batches of uint8 images in main memory, endlessly."""
    while True:
        yield from data.train_dataloader()


def augmented(data: HAM10000, batch: Batch, device: torch.device) -> Batch:
    moved = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
    return data.train_transform(to_floats(moved))


def timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    start = now(device)
    result = work()
    return result, now(device) - start


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


def reset_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("recipe")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--steps", type=int, default=30, help="steps of a round")
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    options, more = parser.parse_known_args()
    found = measure(options.recipe, options.device, options.steps, more)
    write_text(options.json, json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
