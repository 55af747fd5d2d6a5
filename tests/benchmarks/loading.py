"""Speed of loading: files to batches."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import kornia.augmentation as kornia
import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from datamodules.cache import cached_arrays
from datamodules.classes import CLASSES
from datamodules.layout import image_files
from datamodules.lesion_dataset import LesionDataset
from datamodules.loader import to_floats
from datamodules.metadata import read_table
from datamodules.release import Release
from datamodules.samplers import Natural
from datamodules.synthetic import synthesize
from datamodules.transforms import Augment
from tests.benchmarks.timing import in_turns

SIZE, BATCH, WORKERS = 224, 32, 2
BEST = [cv2.IMWRITE_JPEG_QUALITY, 100]


@dataclass
class Data:
    small: Path  # the release's layout, 200 x 150
    large: Path  # the same, 600 x 450
    rows: int = 100_000  # of the large tables
    runs: int = 50  # to compare

    def folders(self, root: Path) -> Path:
        """The images of a release in one folder per class, as ImageFolder requires."""
        target = root.with_name(root.name + "_by_class")
        if not target.exists():
            files = image_files(root)
            for image_id, dx in read_table(root).set_index("image_id")["dx"].items():
                (target / dx).mkdir(parents=True, exist_ok=True)
                (target / dx / files[image_id].name).symlink_to(files[image_id])
        return target


def draw(folder: Path, images: int) -> Data:
    data = Data(folder / "small", folder / "large")
    synthesize(data.small, images=images)
    shutil.copytree(data.small, data.large)
    noise = np.random.default_rng(0)
    for file in image_files(data.large).values():
        large = cv2.resize(cv2.imread(str(file)), (600, 450), interpolation=cv2.INTER_CUBIC)
        # As fine as skin: a smooth JPEG is decoded in half the time. The release's have 276 KB.
        grain = noise.normal(scale=5, size=(450, 600, 1))
        cv2.imwrite(str(file), (large + grain).clip(0, 255).astype(np.uint8), BEST)
    return data


def bench_cache(data: Data) -> list[dict]:
    """Decode all images into the cache at 224 pixels, on all cores."""

    def build(root: Path) -> int:
        shutil.rmtree(root / "cache", ignore_errors=True)
        return len(cached_arrays(Release(root), "ham10000", SIZE)["image"])

    return in_turns(
        {"600 x 450": lambda: build(data.large), "200 x 150": lambda: build(data.small)}, rounds=3
    )


def cached_loader(data: Data) -> DataLoader:
    table = read_table(data.large)
    table["label"] = table["dx"].map(CLASSES.index)
    dataset = LesionDataset(cached_arrays(Release(data.large), "ham10000", SIZE), table)
    sampler = Natural(dataset.labels)
    return DataLoader(dataset, sampler=sampler, batch_size=BATCH, collate_fn=lambda batch: batch)


def folder_loader(folder: Path, *augmentation: v2.Transform) -> DataLoader:
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize((SIZE, SIZE), antialias=True),
            *augmentation,
        ]
    )
    return DataLoader(
        ImageFolder(str(folder), transform),
        shuffle=True,
        batch_size=BATCH,
        num_workers=WORKERS,
        persistent_workers=True,
    )


def epoch(loader: DataLoader) -> int:
    return sum(len(batch["image"] if isinstance(batch, dict) else batch[0]) for batch in loader)


def augmented_epoch(loader: DataLoader, augment: torch.nn.Module | None) -> int:
    """Augment where the model runs: here, in the main process."""
    return sum(len(augment(batch)["image"]) for batch in loader)


def bench_loader(data: Data) -> list[dict]:
    """Batches of 32 uint8 images at 224 pixels, without augmentation.

    ImageFolder decodes in two workers. The cache needs no worker; its epoch is
    repeated, because one alone is too short to measure.
    """
    cached = cached_loader(data)
    large = folder_loader(data.folders(data.large))
    small = folder_loader(data.folders(data.small))
    return in_turns(
        {
            "cache": lambda: sum(epoch(cached) for _ in range(20)),
            "ImageFolder, 600 x 450": lambda: epoch(large),
            "ImageFolder, 200 x 150": lambda: epoch(small),
        },
        rounds=3,
    )


def augmented_one_by_one(chain: v2.Transform, images: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([chain(image) for image in images])


def torchvisions() -> list[v2.Transform]:
    """Augmentation of the same strength as Augment's; regions outside are black."""
    return [
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.RandomAffine(180, (0.1, 0.1), (0.8, 1.25), interpolation=v2.InterpolationMode.BILINEAR),
        v2.ColorJitter(0.2, 0.2, 0.2),
        v2.ToDtype(torch.float32, scale=True),
    ]


def kornias() -> torch.nn.Module:
    """The same of a batch of floats, drawn for each image."""
    return torch.nn.Sequential(
        kornia.RandomHorizontalFlip(),
        kornia.RandomVerticalFlip(),
        kornia.RandomAffine(180, (0.1, 0.1), (0.8, 1.25), padding_mode="reflection", p=1.0),
        kornia.ColorJiggle(0.2, 0.2, 0.2),
    )


def bench_augmentation(data: Data) -> list[dict]:
    """Float images from 8-bit images in memory, at 224 pixels.

    Ours and kornia's in the main process, torchvision's in two workers.
    """
    chain, augment, in_batches = v2.Compose(torchvisions()), Augment(), kornias()
    pixels = [image for batch in cached_loader(data) for image in batch["image"].contiguous()]
    batches = [{"image": of_layout(batch)} for batch in torch.stack(pixels).split(BATCH)]
    per_sample = DataLoader(
        pixels,
        batch_size=BATCH,
        num_workers=WORKERS,
        persistent_workers=True,
        collate_fn=partial(augmented_one_by_one, chain),
    )

    def by(transform: Callable[[dict], dict], as_floats: bool) -> Callable[[], int]:
        convert = to_floats if as_floats else dict
        return lambda: sum(len(transform(convert(batch))["image"]) for batch in batches)

    return in_turns(
        {
            "Augment by OpenCV": by(augment, False),
            "Augment by torch": by(augment, True),
            "torchvision v2 per sample": lambda: sum(len(batch) for batch in per_sample),
            "kornia": by(lambda batch: {"image": in_batches(batch["image"])}, True),
        },
        rounds=7,
    )


def of_layout(batch: torch.Tensor) -> torch.Tensor:
    """In the layout in which the cache serves images."""
    return batch.contiguous(memory_format=torch.channels_last)


def bench_files(data: Data) -> list[dict]:
    """Files to augmented batches: from the cache, and decoded by two workers."""
    cached, augment = cached_loader(data), Augment()
    large = folder_loader(data.folders(data.large), *torchvisions())
    return in_turns(
        {
            "cache, Augment": lambda: augmented_epoch(cached, augment),
            "ImageFolder, torchvision v2 per sample": lambda: epoch(large),
        },
        rounds=3,
    )
