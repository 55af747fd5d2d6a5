"""Speed of loading pairs for SPMix: files to two views with their saliency."""

import importlib
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler, WeightedRandomSampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from datamodules.cache import cached_arrays
from datamodules.classes import CLASSES
from datamodules.layout import image_files
from datamodules.lesion_dataset import LesionDataset
from datamodules.metadata import read_table
from datamodules.release import Release
from datamodules.saliency import fine_grained_saliency
from datamodules.samplers import Paired
from datamodules.views import RandomCrop, Views
from tests.benchmarks.loading import BATCH, SIZE, Data
from tests.benchmarks.timing import in_turns


def bench_pairs(data: Data) -> list[dict]:
    """Batches of 16 anchors and 16 partners at 224 pixels, two views of each and of its saliency.

    The alternative has the structure of the published code: two loaders of one worker each, which
    decode an image and its saliency, a JPEG made beforehand, by PIL and augment both twice by
    torchvision. Both crop, flip and change color as PaCo does. The rate counts images with two
    views each.

    To measure the published data set class too, clone https://github.com/Yancy10-1/SPMix, install
    its requirement scipy and name the clone: ``SPMIX=folder make bench ARGS=pairs``.
    """
    table = read_table(data.large)
    table["label"] = table["dx"].map(CLASSES.index)
    found = image_files(data.large)
    files = [found[image_id] for image_id in table["image_id"]]
    maps = saliency_files(files, data.large.with_name("saliency"))
    labels = table["label"].tolist()
    peers = {"PIL and torchvision per image": PerImage(files, maps, labels)}
    if clone := os.environ.get("SPMIX"):
        peers["SPMix's published class"] = published(Path(clone), files, maps, labels)
    arrays = cached_arrays(Release(data.large), "ham10000", SIZE, ["saliency"])
    dataset = LesionDataset(arrays, table)
    batched = DataLoader(
        dataset, BATCH, sampler=Paired(dataset.labels.tolist()), collate_fn=lambda batch: batch
    )
    views = Views([RandomCrop(operations=2), RandomCrop(gray=0.2, blur=0.5)])
    ours = {"cache, Paired, Views": lambda: sum(viewed(views, batch) for batch in batched)}
    return in_turns(ours | {name: in_two_loaders(peer, labels) for name, peer in peers.items()})


def in_two_loaders(dataset: Dataset, labels: list[int]) -> Callable[[], int]:
    """An epoch of shuffled anchors, and of partners drawn in proportion to 1 / N_c."""
    counts = Counter(labels)
    balanced = WeightedRandomSampler([1 / counts[label] for label in labels], len(labels))
    loaders = [
        DataLoader(dataset, BATCH // 2, sampler=sampler, num_workers=1, persistent_workers=True)
        for sampler in (RandomSampler(labels), balanced)
    ]
    return lambda: sum(2 * len(anchors[-1]) for anchors, _ in zip(*loaders, strict=True))


def published(clone: Path, files: list[Path], maps: list[Path], labels: list[int]) -> Dataset:
    """The data set class of SPMix, imported from a clone of its repository."""
    sys.path.insert(0, str(clone))
    importlib.import_module("moco.loader")
    folder = maps[0].parent.with_name("linked")  # the class reads one folder, and its maps another
    folder.mkdir(exist_ok=True)
    for file in files:
        (folder / file.name).symlink_to(file)
    lines = [f"{file.name} {label}\n" for file, label in zip(files, labels, strict=True)]
    listed = folder.with_suffix(".txt")
    listed.write_text("".join(lines))
    kind = importlib.import_module("dataset.isic_mix_2").ISICImageFolder
    return kind(str(folder), str(maps[0].parent), str(listed), len(CLASSES))


def saliency_files(files: list[Path], folder: Path) -> list[Path]:
    """The saliency of each image at its own size, as a JPEG file."""
    folder.mkdir(exist_ok=True)
    targets = [folder / file.name for file in files]
    for file, target in zip(files, targets, strict=True):
        if not target.exists():
            pixels = torch.from_numpy(cv2.imread(str(file))[..., ::-1].copy()).permute(2, 0, 1)
            cv2.imwrite(str(target), fine_grained_saliency(pixels[None])[0, 0].numpy())
    return targets


class PerImage(Dataset):
    """Two views of an image, (2, 4, H, W): color and saliency."""

    def __init__(self, files: list[Path], maps: list[Path], labels: list[int]) -> None:
        self.files, self.maps, self.labels = files, maps, labels
        crop = [
            v2.RandomResizedCrop(SIZE, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.ColorJitter(0.4, 0.4, 0.4),
        ]
        operation = v2.RandomApply(
            [
                v2.RandomChoice(
                    [
                        v2.RandomAffine(15, interpolation=v2.InterpolationMode.BILINEAR),
                        v2.RandomAffine(0, shear=8, interpolation=v2.InterpolationMode.BILINEAR),
                        v2.RandomAffine(0, translate=(0.2, 0.2)),
                        v2.ColorJitter(brightness=0.45),
                        v2.ColorJitter(contrast=0.45),
                        v2.ColorJitter(saturation=0.45),
                    ]
                )
            ],
            p=0.5,
        )
        blur = v2.RandomApply([v2.GaussianBlur(13, (0.1, 2.0))], p=0.5)
        self.views = (
            v2.Compose([*crop, operation, operation]),
            v2.Compose([*crop, v2.RandomGrayscale(0.2), blur]),
        )
        self.float = v2.ToDtype(torch.float32, scale=True)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, int]:
        image, saliency = self.decoded(self.files[item], "RGB"), self.decoded(self.maps[item], "L")
        pair = tv_tensors.Image(image), tv_tensors.Mask(saliency)  # a mask keeps its colours
        views = [self.float(*view(*pair)) for view in self.views]
        planes = [[image.as_subclass(torch.Tensor), saliency / 255] for image, saliency in views]
        return torch.stack([torch.cat(view) for view in planes]), self.labels[item]

    @staticmethod
    def decoded(file: Path, mode: str) -> torch.Tensor:
        with Image.open(file) as image:
            return v2.functional.pil_to_tensor(image.convert(mode))


def viewed(views: Views, batch: dict[str, torch.Tensor]) -> int:
    views(batch)
    return len(batch["image"])
