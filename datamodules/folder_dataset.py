"""The dataset of the photos in any folder, for predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.errors import MAX_LISTED, DataError
from datamodules.folders import files_below
from datamodules.lesion_dataset import channels_first
from datamodules.pixels import is_photo, reason


class FolderDataset(Dataset[dict[str, Tensor]]):
    """The photos of a folder, decoded on the fly in the same way as for the cache.

    An item is a dict: ``image`` (3, H, W) uint8, ``index`` in :attr:`files`, and ``readable``.
    An image that cannot be read is black.

    Args:
        folder: Folder to search, with its subfolders, or a single photo. Files that operating
            systems hide in folders are skipped; :attr:`left_out` lists all other files that are
            not photos.
        size: Height and width of the images, in pixels.
        read: Function from a file and the size to (size, size, 3) uint8.

    Raises:
        DataError: The folder does not exist, cannot be searched, or contains no photo.
    """

    def __init__(self, folder: Path, size: int, read: Callable[[Path, int], np.ndarray]) -> None:
        folder = folder.expanduser()
        if not folder.exists():
            raise DataError(f"{folder} does not exist: name a folder of photos, or a photo.")
        files = files_below(folder) if folder.is_dir() else [folder]
        self.files = [file for file in files if is_photo(file)]
        self.folder = folder if folder.is_dir() else folder.parent
        self.left_out = sorted(set(files) - set(self.files))
        self.size = size
        self.read = read
        if not self.files:
            raise DataError(" ".join(filter(None, (f"{folder} contains no image.", self.remark))))

    @property
    def remark(self) -> str:
        """A sentence that counts and lists the files that are not photos; empty without any."""
        if not self.left_out:
            return ""
        kinds = Counter(file.suffix.lower() or "no ending" for file in self.left_out)
        names = [str(file.relative_to(self.folder)) for file in self.left_out]
        more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
        return (
            f"{len(names)} files were left out, because Pillow cannot decode them as photos "
            f"({', '.join(f'{count} {kind}' for kind, count in kinds.most_common())}): "
            f"{', '.join(names[:MAX_LISTED])}{more}. If they are photos, convert them to JPEG or "
            "PNG."
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, items: Sequence[int]) -> dict[str, Tensor]:
        decoded = [self._read(self.files[item]) for item in items]
        images = np.zeros((len(items), self.size, self.size, 3), dtype=np.uint8)
        for image, pixels in zip(images, decoded, strict=True):
            if not isinstance(pixels, str):
                image[:] = pixels
        return {
            "image": channels_first(torch.from_numpy(images)),
            "index": torch.tensor(items),
            "readable": torch.tensor([not isinstance(pixels, str) for pixels in decoded]),
        }

    def why_unreadable(self, item: int) -> str:
        """The reason why a file cannot be read; empty if it can be."""
        decoded = self._read(self.files[item])
        return decoded if isinstance(decoded, str) else ""

    def _read(self, file: Path) -> np.ndarray | str:
        try:
            return self.read(file, self.size)
        except Exception as error:  # Pillow raises half a dozen types for damaged files
            return reason(file, error)
