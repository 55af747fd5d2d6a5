"""HAM10000 as Lightning sees it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from datamodules.cache import read_image, read_mask, release_arrays
from datamodules.dataset import (
    CLASSES,
    NO_LESION,
    SHOWN,
    SYNTHETIC,
    DataError,
    FolderDataset,
    LesionDataset,
    image_files,
    mask_files,
    read_table,
    without_lesion_id,
)
from datamodules.loader import ResumableLoader, as_is, leave_signals_to_the_trainer
from datamodules.samplers import EpochSampler, Natural
from datamodules.splits import PARTS, Split

TASKS = {"diagnosis": CLASSES, "melanoma": ("nv", "mel")}


class HAM10000(LightningDataModule):
    """HAM10000 (https://arxiv.org/abs/1803.10417), split by lesion.

    A batch is a dict: ``image`` (B, 3, H, W) in [0, 1], ``label`` (B,), ``index`` (B,), the row
    in :attr:`table`, and on request ``mask`` and ``saliency`` (B, 1, H, W) in [0, 1].

    Order, augmentation and dropout are functions of the seed and of how far the run is; nothing
    random is stored, and an interrupted run goes on exactly.

    Args:
        root: Folder into which ``make data`` put the release.
        split: Which lesions train, select and test.
        task: All seven classes, or melanoma against nevus (the other images are left out).
        size: Height and width of the images, in pixels.
        batch_size: Images in a step over all processes; each serves its share.
        num_workers: Loading processes beside each training process. If not given, none where the
            model is on the CPU, which copies a batch from the maps faster than it could take it
            over, and 4 where it is on a GPU, which works meanwhile.
        mask: Whether batches hold the lesion's mask. The official sets have none.
        saliency: Whether batches hold the fine-grained saliency of the image.
        sampler: Labels to the order of an epoch; every image once, shuffled, if not given.
        train_transform: Batch to batch, in training, on the model's device.
        predict_folder: Folder of the photos to predict, or a single photo.
        seed: The run's seed; the command line takes it from ``seed_everything``.
        cache_dir: Folder of the decoded pixels. If not given, ``root/cache``, or
            ``~/.cache/longderm`` where that cannot be written.

    Raises:
        DataError: ``size`` is not positive.
    """

    trainer: Trainer  # attached before any hook is called

    def __init__(
        self,
        root: Path,
        split: Split,
        task: Literal["diagnosis", "melanoma"] = "diagnosis",
        size: int = 224,
        batch_size: int = 32,
        num_workers: int | None = None,
        mask: bool = False,
        saliency: bool = False,
        sampler: Callable[[Sequence[int]], EpochSampler] | None = None,
        train_transform: nn.Module | None = None,
        predict_folder: Path | None = None,
        seed: int = 0,
        cache_dir: Path | None = None,
    ) -> None:
        super().__init__()
        if size < 1:
            raise DataError(f"data.size={size} is no size of an image: give at least 1 pixel.")
        self.root, self.split, self.size, self.seed = Path(root).expanduser(), split, size, seed
        self.cache_dir = cache_dir
        self.class_names = TASKS[task]
        self.batch_size, self.num_workers = batch_size, num_workers
        self._mapped: dict[str, dict[str, np.ndarray]] = {}
        self.maps = [m for m, on in (("mask", mask), ("saliency", saliency)) if on]
        self.make_sampler = sampler or Natural
        self.train_transform = train_transform or nn.Identity()
        self.predict_folder = predict_folder

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per image of the task, with its ``label`` and ``part``."""
        table = self._release[self._release["dx"].isin(self.class_names)]
        labels = table["dx"].map(self.class_names.index)
        return table.assign(label=labels, part=self.split(table))

    @cached_property
    def _release(self) -> pd.DataFrame:
        return read_table(self.root)

    @property
    def synthetic(self) -> bool:
        """Whether these are drawings, so that no result says anything about skin."""
        return (self.root / SYNTHETIC).exists()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def class_counts(self) -> list[int]:
        """Training images per class; the command line hands them to losses that ask for them."""
        return self.class_table["train"].tolist()

    @property
    def batches_per_epoch(self) -> int:
        """Training batches, whatever the number of processes; an incomplete one is left out."""
        images = sum(self.class_counts)
        if images < self.batch_size:
            raise DataError(
                f"{images} training images do not fill one batch of {self.batch_size}: "
                "lower data.batch_size."
            )
        return images // self.batch_size

    @property
    def class_table(self) -> pd.DataFrame:
        """Images per class (rows) and part (columns)."""
        counts = pd.crosstab(self.table["dx"], self.table["part"])
        return counts.reindex(index=list(self.class_names), columns=list(PARTS), fill_value=0)

    def prepare_data(self) -> None:
        if self.trainer.state.fn != "predict":
            self._remark()
            for source in self.table.loc[self.table["part"] != "", "source"].unique():
                self._arrays(source)

    def _rowless(self) -> list[str]:
        return sorted(image_files(self.root).keys() - {NO_LESION, *self._release["image_id"]})

    def _remark(self) -> None:
        """Prints what the table and the folders hold that is not used as it is."""
        if lone := without_lesion_id(self.table):
            print(f"{lone:,} images have no lesion_id: each counts as a lesion of its own.")
        if rowless := self._rowless():
            print(
                f"{len(rowless):,} images are left out, because the metadata have no row for "
                f"them: {', '.join(rowless[:SHOWN])}{' ...' if len(rowless) > SHOWN else ''}"
            )

    def setup(self, stage: str) -> None:
        self.train_transform.to(self.trainer.strategy.root_device)

    def train_dataloader(self) -> DataLoader[Any]:
        train = self._dataset("train")
        sampler = self.make_sampler(train.labels.tolist())
        loader = ResumableLoader(
            train, sampler=sampler, batch_size=self._share, drop_last=True, **self._loading
        )
        epoch, batches = self._progress(self.batches_per_epoch)
        sampler.place(
            seed=self.seed,
            epoch=epoch,
            epochs=self.trainer.max_epochs or 1,
            start=batches * self._share,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        return loader

    def val_dataloader(self) -> DataLoader[Any]:
        return self._evaluation_loader(self._dataset("val"))

    def test_dataloader(self) -> DataLoader[Any]:
        return self._evaluation_loader(self._dataset("test"))

    def predict_dataloader(self) -> DataLoader[Any]:
        if self.predict_folder is None:
            raise DataError("Nothing to predict: name a folder of images (make predict IN=folder).")
        folder = FolderDataset(self.predict_folder, self.size, read_image)
        return self._evaluation_loader(folder)

    def on_before_batch_transfer(self, batch: dict[str, Tensor], _: int) -> dict[str, Tensor]:
        # Here, because augmentation comes before every hook that a callback has in a step.
        if self.trainer.training:
            step = (self.seed, self.trainer.global_step, *batch["index"].tolist())
            torch.manual_seed(zlib.crc32(np.array(step).tobytes()))
        return batch

    def on_after_batch_transfer(self, batch: dict[str, Tensor], _: int) -> dict[str, Tensor]:
        pixels = {k: v.float().div_(255) for k, v in batch.items() if v.dtype == torch.uint8}
        batch = batch | pixels
        return self.train_transform(batch) if self.trainer.training else batch

    @property
    def _share(self) -> int:
        world_size = self.trainer.world_size
        if self.batch_size % world_size:
            raise DataError(
                f"data.batch_size={self.batch_size} counts the images of all processes and must "
                f"be a multiple of their number, {world_size}."
            )
        return self.batch_size // world_size

    def _progress(self, batches: int) -> tuple[int, int]:
        """The epoch that training stands in, and how many of its batches are done."""
        limit = self.trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        accumulated = self.trainer.accumulate_grad_batches
        epoch, steps = divmod(self.trainer.global_step, math.ceil(batches / accumulated))
        return epoch, steps * accumulated

    @property
    def _loading(self) -> dict[str, Any]:
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        workers = self.num_workers if self.num_workers is not None else 4 * on_gpu
        return {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": on_gpu,
            "collate_fn": as_is,
            "worker_init_fn": leave_signals_to_the_trainer,
        }

    def _evaluation_loader(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        # Interleaved shares: every image exactly once, whatever the number of processes.
        mine = range(self.trainer.global_rank, len(dataset), self.trainer.world_size)  # type: ignore[arg-type]
        return DataLoader(dataset, sampler=mine, batch_size=self._share, **self._loading)

    def gather(self, index: Sequence[int]) -> dict[str, Tensor]:
        """Images in rows of :attr:`table`, to be looked at, as a batch that is not augmented.

        It has their ``mask`` wherever the release does, whatever batches hold otherwise.
        """
        rows = self.table.loc[list(index)]
        arrays = self._arrays(rows["source"].iloc[0])
        batch = LesionDataset(arrays, rows).__getitems__(range(len(rows)))
        files = mask_files(self.root)
        if set(rows["image_id"]) <= files.keys():
            masks = [read_mask(files[image_id], self.size) for image_id in rows["image_id"]]
            batch["mask"] = torch.from_numpy(np.stack(masks))[:, None]
        return {k: v.float().div_(255) if v.dtype == torch.uint8 else v for k, v in batch.items()}

    def _dataset(self, part: str) -> LesionDataset:
        table = self.table[self.table["part"] == part]
        if table.empty:
            raise DataError(f"There is no image in the {part} part: change data.split.")
        return LesionDataset(self._arrays(table["source"].iloc[0]), table)

    def _arrays(self, source: str) -> dict[str, np.ndarray]:
        if source not in self._mapped:  # once: a running training needs no files but its maps
            arrays = release_arrays(
                self.root, self._release, source, self.size, self.maps, self.cache_dir
            )
            self._mapped[source] = arrays
        return self._mapped[source]
