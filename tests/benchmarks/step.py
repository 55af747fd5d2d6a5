"""From batches to weights."""

import logging
import multiprocessing
import re
import tempfile
import warnings
from pathlib import Path

import pytorch_lightning as pl
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader

from callbacks.history import History
from datamodules import HAM10000
from datamodules.splits import Stratified
from datamodules.transforms import Augment
from lightning_modules import Classifier
from lightning_modules.networks import TimmNetwork
from lightning_modules.schedules import WarmupCosine
from tests.benchmarks.loading import Data
from tests.benchmarks.timing import in_turns

NAME, SIZE, BATCH, STEPS = "resnet10t", 64, 64, 30
NAMES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")


def bench_step(data: Data) -> list[dict]:
    """The same network, loss and optimizer in a bare loop and in the Trainer with its logger.

    Both take the same batches from memory, so that only the step is measured. What the Trainer
    needs once, before its first step, is measured as well.
    """
    batches = [
        {
            "image": torch.rand(BATCH, 3, SIZE, SIZE),
            "label": torch.randint(0, 7, (BATCH,)),
            "index": torch.arange(BATCH),
        }
        for _ in range(STEPS)
    ]
    return in_turns({"bare loop": lambda: bare(batches), "Trainer": lambda: trained(batches)}, 7)


def bare(batches: list[dict]) -> int:
    network = timm.create_model(NAME, num_classes=7).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    schedule = WarmupCosine(optimizer, STEPS)
    for batch in batches:
        optimizer.zero_grad()
        criterion(network((batch["image"] - 0.5) / 0.2), batch["label"]).backward()
        optimizer.step()
        schedule.step()
    return BATCH * len(batches)


def trained(batches: list[dict]) -> int:
    module = Classifier(
        TimmNetwork(NAME, pretrained=False),
        nn.CrossEntropyLoss(),
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        WarmupCosine,
        class_names=NAMES,
        batches_per_epoch=STEPS,
    )
    with tempfile.TemporaryDirectory() as folder:
        quiet_trainer(folder, max_epochs=1, limit_val_batches=0).fit(
            module, DataLoader(batches, batch_size=None)
        )
    return BATCH * len(batches)


def quiet_trainer(folder: str, **options: object) -> pl.Trainer:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=History(folder),
        log_every_n_steps=20,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )


def bench_memory(data: Data) -> list[dict]:
    """Peak resident memory of a process that trains one epoch from the cache."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=train_once, args=(data.large, queue))
    process.start()
    rows = queue.get()
    process.join()
    return rows


def train_once(root: object, queue: object) -> None:
    rows = [{"what": "after the imports", "MB": peak_memory()}]
    module = Classifier(
        TimmNetwork(NAME, pretrained=False),
        nn.CrossEntropyLoss(),
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        class_names=NAMES,
    )
    data = HAM10000(root, Stratified(), size=SIZE, batch_size=BATCH, train_transform=Augment())
    with tempfile.TemporaryDirectory() as folder:
        quiet_trainer(folder, max_epochs=1).fit(module, data)
    rows += [{"what": f"{NAME} at {SIZE} px, batch {BATCH}", "MB": peak_memory()}]
    queue.put(rows)


def peak_memory() -> int:
    """Of this process, in MB; the kernel's own figure, because getrusage counts the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024
