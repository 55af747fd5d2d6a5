"""Speed of training steps, and memory."""

import logging
import multiprocessing
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path

import pytorch_lightning as pl
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader

from callbacks.recording.history import History
from datamodules import HAM10000
from datamodules.cache import cached_arrays
from datamodules.lesion_dataset import LesionDataset
from datamodules.release import Release
from datamodules.splits import Stratified
from datamodules.transforms import Augment, Transform
from lightning_modules import Classifier
from lightning_modules.networks import TimmNetwork
from lightning_modules.schedules import WarmupCosine
from tests.benchmarks.loading import Data
from tests.benchmarks.timing import in_turns, peak_memory

NAME, SIZE, BATCH, EPOCHS = "resnet10t", 64, 64, 3


def bench_step(data: Data) -> list[dict]:
    """Compare a bare loop with the Trainer: same network, loss, optimizer, schedule and batches.

    The Trainer's side is the project's: datamodule with its seeding, Classifier, History. What it
    does once before its first step is in the measure; W&B, a process of its own, is not.
    """
    return in_turns({"Trainer": lambda: trained(data.large), "bare loop": lambda: bare(data.large)})


def bench_training(data: Data) -> list[dict]:
    """Epochs of the network of ``small_ce``, 0.4 M parameters at 64 pixels, by augmentation."""
    by_torch = Augment()
    by_torch.takes_8_bit = False  # so it receives floats
    return in_turns(
        {
            "Augment by OpenCV": lambda: trained(data.large, "test_resnet", Augment()),
            "Augment by torch": lambda: trained(data.large, "test_resnet", by_torch),
            "no augmentation": lambda: trained(data.large, "test_resnet"),
        }
    )


def lesions(root: Path, transform: Transform | None = None) -> HAM10000:
    return HAM10000(root, Stratified(), size=SIZE, batch_size=BATCH, train_transform=transform)


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3)


def bare(root: Path) -> int:
    table = lesions(root).table
    train = LesionDataset(
        cached_arrays(Release(root), "ham10000", SIZE), table[table["split"] == "train"]
    )
    loader = DataLoader(train, BATCH, shuffle=True, drop_last=True, collate_fn=as_is)
    network, criterion = timm.create_model(NAME, num_classes=7).train(), nn.CrossEntropyLoss()
    updates = optimizer(network.parameters())
    schedule = WarmupCosine(updates, EPOCHS * len(loader))
    for _ in range(EPOCHS):
        for batch in loader:
            images = (batch["image"].float().div_(255) - 0.5) / 0.2
            updates.zero_grad()
            criterion(network(images), batch["label"]).backward()
            updates.step()
            schedule.step()
    return EPOCHS * len(loader) * BATCH


def trained(root: Path, name: str = NAME, transform: Transform | None = None) -> int:
    data = lesions(root, transform)
    module = Classifier(
        TimmNetwork(name, pretrained=False),
        nn.CrossEntropyLoss(),
        optimizer,
        WarmupCosine,
        class_names=data.class_names,
        batches_per_epoch=data.batches_per_epoch,
    )
    with tempfile.TemporaryDirectory() as folder:
        quiet_trainer(folder, max_epochs=EPOCHS, limit_val_batches=0).fit(module, data)
    return EPOCHS * data.batches_per_epoch * BATCH


def as_is(batch: dict) -> dict:
    return batch


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
    data = lesions(root, Augment())
    module = Classifier(
        TimmNetwork(NAME, pretrained=False),
        nn.CrossEntropyLoss(),
        optimizer,
        class_names=data.class_names,
    )
    with tempfile.TemporaryDirectory() as folder:
        quiet_trainer(folder, max_epochs=1).fit(module, data)
    rows += [{"what": f"{NAME} at {SIZE} px, batch {BATCH}", "MB": peak_memory()}]
    queue.put(rows)
