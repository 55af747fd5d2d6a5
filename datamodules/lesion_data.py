"""The LightningDataModule of lesions: HAM10000, or any data set that a table describes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules.cache import read_image
from datamodules.classes import ALL
from datamodules.encoded import EncodedDataset, encoded_arrays, frozen_encoder, orientations_of
from datamodules.errors import DataError
from datamodules.folder_dataset import FolderDataset
from datamodules.labeled_images import LabeledImages
from datamodules.lesion_dataset import Arrays, LesionDataset, channels_first
from datamodules.loader import keep_batch, make_loader, to_floats
from datamodules.on_device import place
from datamodules.samplers import EpochSampler, Natural
from datamodules.shard_order import ShardOrder, shards_of
from datamodules.splits import Split
from datamodules.transforms import Transform


class LesionData(LabeledImages):
    """Images of skin lesions with a class each, split by lesion.

    The data are HAM10000 as ``make data`` installs it, or any folder with a ``dataset.yaml``; see
    :class:`~datamodules.table_folder.TableFolder`.

    A batch is a dict: ``image`` (B, 3, H, W) in [0, 1], ``label`` (B,), ``index`` (B,), which is
    the row in :attr:`table`, and on request ``mask`` and ``saliency`` (B, 1, H, W) in [0, 1].

    Order, augmentation and dropout are functions of the seed and of the progress of the run. No
    random state is stored, and an interrupted run resumes exactly.

    Without a trainer, in a script or a notebook, the loaders serve the same batches on the CPU,
    not augmented, as a single process at the start of training.

    Args:
        root: Folder of the data set.
        split: Assignment of the lesions to the training, validation and test split.
        task: Classes to tell apart; images of others are left out. ``diagnosis`` has all classes;
            HAM10000 also has ``melanoma``, melanoma against nevus.
        size: Height and width of the images, in pixels, at least 1.
        batch_size: Images per step over all processes, each of which serves its share.
        num_workers: Loading processes beside each training process. By default 4 on a GPU, and
            none on a CPU, which copies a batch from the cache faster than from another process.
            With ``on_device`` there are none.
        on_device: Whether all pixels of training, validation and test are copied to the model's
            device, where batches are then selected. By default if they fill at most a quarter of
            the free memory of a GPU: HAM10000 at 224 pixels takes 1.5 GB. The batches are the same.
        mask: Whether batches hold lesion masks. The official ISIC 2018 sets have none.
        saliency: Whether batches hold the fine-grained saliency of the image.
        encoded: Whether ``image`` is the output of the network's frozen encoder, computed once and
            kept in the cache. Training batches hold it in V orientations, (B, V, ...), of which
            ``datamodules.transforms.RandomOrientation`` chooses; others hold that of the image
            itself, (B, ...). Images to predict, and batches without a trainer, are never encoded.
        sampler: Sampler of the training images. By default every image once per epoch, shuffled.
        train_transform: Augmentation of the training batches, on the model's device.
        predict_folder: Folder of photos to predict, or a single photo.
        seed: Seed of the run, which the command line takes from ``seed_everything``.
        cache_dir: Folder of the decoded pixels. By default ``root/cache``, or
            ``~/.cache/longderm`` if that is not writable.
        window: Number of shards whose images are shuffled together, at least 1, for data sets in
            shards that do not fit on the machine; see :mod:`datamodules.shard_order`. By default
            all, and the order is that of the sampler.

    Raises:
        DataError: ``size`` or ``window`` is not positive, or the data set has no such task.

    Examples:
        >>> from datamodules.splits import Balanced
        >>> split = Balanced(test_images=3, val_images=2)  # of each of the seven classes
        >>> data = LesionData(Path("data/demo"), split, size=64)
        >>> data.setup("validate")
        >>> batch = next(iter(data.val_dataloader()))
        >>> batch["image"].shape, batch["label"].shape
        (torch.Size([14, 3, 64, 64]), torch.Size([14]))
    """

    trainer: Trainer | None

    def __init__(
        self,
        root: Path,
        split: Split,
        task: str = ALL,
        size: int = 224,
        batch_size: int = 32,
        num_workers: int | None = None,
        on_device: bool | None = None,
        mask: bool = False,
        saliency: bool = False,
        encoded: bool = False,
        sampler: Callable[[Sequence[int]], EpochSampler] | None = None,
        train_transform: Transform | None = None,
        predict_folder: Path | None = None,
        seed: int = 0,
        cache_dir: Path | None = None,
        window: int | None = None,
    ) -> None:
        super().__init__(root, split, task)
        if size < 1:
            raise DataError(f"data.size={size} is not an image size: set at least 1 pixel.")
        if window is not None and window < 1:
            raise DataError(f"data.window={window}: set at least 1 shard, or null for all.")
        self.size = size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_device = on_device
        self.maps = [name for name, on in (("mask", mask), ("saliency", saliency)) if on]
        self.orientations = orientations_of(train_transform, bool(self.maps)) if encoded else 0
        self.make_sampler = sampler or Natural
        self.train_transform = train_transform or nn.Identity()
        self.predict_folder = predict_folder
        self.seed = seed
        self.cache_dir = cache_dir
        self.window = window
        self._open_arrays: dict[str, dict[str, np.ndarray]] = {}
        self._open_encoded: dict[str, dict[str, np.ndarray]] = {}
        self._placed: dict[tuple[str, bool, torch.device], Arrays] = {}

    @property
    def batches_per_epoch(self) -> int:
        """Training batches per epoch over all processes, without an incomplete last one."""
        images = sum(self.class_counts)
        if images < self.batch_size:
            raise DataError(
                f"{images} training images do not fill one batch of {self.batch_size}: "
                "lower data.batch_size."
            )
        return images // self.batch_size

    def prepare_data(self) -> None:
        if self.trainer is None or self.trainer.state.fn != "predict":
            self.folder.report_unused(self.table)
            for source in self.table.loc[self.table["split"] != "", "source"].unique():
                self._arrays(source)
                if self.orientations and self.trainer:
                    self._encoded_arrays(source)

    def setup(self, stage: str) -> None:
        self.train_transform.to(self._device)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        train = self._dataset("train")
        sampler = self.make_sampler(train.labels.tolist())
        if self.window is not None:
            sampler = ShardOrder(sampler, shards_of(train.rows, self.folder), self.window)
        epoch, batches = self._progress(self.batches_per_epoch)
        sampler.place(
            seed=self.seed,
            epoch=epoch,
            epochs=(self.trainer.max_epochs if self.trainer else None) or 1,
            start=batches * self._share,
            rank=self._rank,
            world_size=self._world_size,
        )
        return self._loader(train, sampler, train=True)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return self._evaluation_loader(self._dataset("val"))

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return self._evaluation_loader(self._dataset("test"))

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        if self.predict_folder is None:
            raise DataError(
                "There are no images to predict: set data.predict_folder (make predict IN=folder)."
            )
        return self._evaluation_loader(FolderDataset(self.predict_folder, self.size, read_image))

    def on_before_batch_transfer(self, batch: dict[str, Tensor], _: int) -> dict[str, Tensor]:
        # Seeded in this hook, because augmentation precedes every hook of a callback in a step.
        if self.trainer and self.trainer.training:
            step = (self.seed, self.trainer.global_step, *batch["index"].tolist())
            torch.manual_seed(zlib.crc32(np.array(step).tobytes()))
        return batch

    def on_after_batch_transfer(self, batch: dict[str, Tensor], _: int) -> dict[str, Tensor]:
        if not (self.trainer and self.trainer.training):
            return to_floats(batch)
        if not getattr(self.train_transform, "takes_8_bit", False):
            batch = to_floats(batch)
        return to_floats(self.train_transform(batch))

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    @property
    def _share(self) -> int:
        """Images of a batch that this process serves."""
        if self.batch_size % self._world_size:
            raise DataError(
                f"data.batch_size={self.batch_size} counts the images of all processes and must "
                f"be a multiple of their number, {self._world_size}."
            )
        return self.batch_size // self._world_size

    def _progress(self, batches: int) -> tuple[int, int]:
        """The current epoch of the training, and how many of its ``batches`` are done."""
        if self.trainer is None:
            return 0, 0
        limit = self.trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        accumulated = self.trainer.accumulate_grad_batches
        epoch, steps = divmod(self.trainer.global_step, math.ceil(batches / accumulated))
        return epoch, steps * accumulated

    def _evaluation_loader(
        self, dataset: LesionDataset | FolderDataset
    ) -> DataLoader[dict[str, Tensor]]:
        # Interleaved shares: every image exactly once, whatever the number of processes.
        return self._loader(dataset, range(self._rank, len(dataset), self._world_size))

    def _loader(
        self, dataset: LesionDataset | FolderDataset, order: Iterable[int], train: bool = False
    ) -> DataLoader[dict[str, Tensor]]:
        # A trainer calls on_after_batch_transfer, which converts the pixels on the device.
        collate: Callable[..., dict[str, Tensor]] = keep_batch if self.trainer else to_floats
        placed = isinstance(dataset, LesionDataset) and dataset.on_device
        return make_loader(
            dataset,
            order,
            self._share,
            torch.device("cpu") if placed else self._device,
            0 if placed else self.num_workers,
            train,
            collate,
            # Photos to predict are files, whatever the data set is.
            self.folder.worker_context if isinstance(dataset, LesionDataset) else None,
        )

    def gather(self, index: Sequence[int]) -> dict[str, Tensor]:
        """A batch of the images in the given rows of :attr:`table`, not augmented.

        It contains their ``mask`` if the data set has all of them, whatever ``mask`` is set to.
        """
        rows = self.table.loc[list(index)]
        arrays = self._arrays(rows["source"].iloc[0])
        batch = LesionDataset(arrays, rows).__getitems__(range(len(rows)))
        if (masks := self.folder.read_masks(rows, self.size)) is not None:
            batch["mask"] = channels_first(torch.from_numpy(masks))
        return to_floats(batch)

    def _dataset(self, split: str) -> LesionDataset:
        table = self.table[self.table["split"] == split]
        if table.empty:
            raise DataError(f"The {split} split has no images: choose another data.split.")
        source = table["source"].iloc[0]
        if not (self.orientations and self.trainer):
            return LesionDataset(self._arrays_to_serve(source, encoded=False), table)
        arrays = self._arrays_to_serve(source, encoded=True)
        return EncodedDataset(arrays, table, oriented=split == "train")

    def _arrays_to_serve(self, source: str, encoded: bool) -> Arrays:
        key = source, encoded, self._device
        if key not in self._placed:
            arrays = self._encoded_arrays(source) if encoded else self._arrays(source)
            self._placed[key] = place(arrays, self._device, self.on_device)
        return self._placed[key]

    def _encoded_arrays(self, source: str) -> dict[str, np.ndarray]:
        if source not in self._open_encoded:
            fitting = self.trainer is not None and self.trainer.state.fn == "fit"
            self._open_encoded[source] = encoded_arrays(
                self._arrays(source)["image"],
                frozen_encoder(self.trainer),
                self._device,
                self.cache_dir,
                self.orientations if fitting else 1,
            )
        return self._open_encoded[source]

    def _arrays(self, source: str) -> dict[str, np.ndarray]:
        # Opened once, so that a running training needs no files besides its memory maps.
        if source not in self._open_arrays:
            self._open_arrays[source] = self.folder.arrays(
                source, self.size, self.maps, self.cache_dir
            )
        return self._open_arrays[source]
