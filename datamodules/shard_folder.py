"""A data set in shards: pixels in object storage, with local copies of those in use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from filelock import FileLock

from datamodules.cache import cache_folder, user_cache
from datamodules.classes import Classes, read_yaml
from datamodules.data_folder import DataFolder
from datamodules.errors import DataError
from datamodules.kept_table import map_arrow
from datamodules.layout import OFFICIAL
from datamodules.object_store import ObjectStore
from datamodules.table_columns import DATASET

SHARDS = "shards"  # the key of dataset.yaml
CACHE_GB = 100.0


class ShardFolder(DataFolder):
    """A data set that ``python -m datamodules shard`` wrote, here or at a URL.

    The folder has a ``dataset.yaml`` with the URL: ``shards: s3://bucket/lesions``, and optionally
    ``cache_gb``, the gigabytes of shards that this machine may hold. Table, classes and pixels are
    those of the folder that the shards were written from. The shard of an image is downloaded when
    the image is first needed, once for all processes of the machine.

    Raises:
        DataError: There are no complete shards.
    """

    # Connections do not survive a fork.
    worker_context = get_context("forkserver") if hasattr(os, "fork") else get_context("spawn")
    worker_context.set_forkserver_preload([__name__])  # one process imports torch, not each worker

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        options = read_yaml(root / DATASET)
        gigabytes = options.get("cache_gb", CACHE_GB)
        if type(gigabytes) not in (int, float) or not 0 < gigabytes < float("inf"):
            raise DataError(
                f"{root / DATASET}: `cache_gb` is {gigabytes!r}: set it to more than 0."
            )
        self.limit = int(gigabytes * 1e9)
        self.is_local = not isinstance(options[SHARDS], str)
        self.store = ObjectStore(str(root) if self.is_local else options[SHARDS])
        self.record: Mapping[str, Any] = options if self.is_local else _parsed(self.store)
        if not _is_complete(self.record.get(SHARDS)):
            raise DataError(
                f"{self.store.url} has no shards, or an incomplete record of them: write them with "
                "`python -m datamodules shard`."
            )
        self.shards: Mapping[str, Any] = self.record[SHARDS]
        self.images_per_shard = self.shards["images"]
        self.key = self.shards["table"]

    @property
    def classes(self) -> Classes:
        return Classes.parse(self.record, self.store.url)

    @property
    def synthetic(self) -> bool:
        return bool(self.shards["synthetic"])

    def read_table(self) -> pd.DataFrame:
        return self._copies(None).read(self.shards["table"], lambda path: map_arrow(path)[0])

    def file_names(self, kind: str, rows: pd.DataFrame) -> pd.Series[str]:
        return pd.Series(None, rows.index, dtype="str")

    def describe_missing(self, kind: str, image_ids: list[str]) -> str:
        return f"{self.store.url} holds pixels and no {kind} files: use their folder instead."

    def arrays(
        self, source: str, size: int, maps: Sequence[str] = (), cache_dir: Path | None = None
    ) -> dict[str, Any]:
        if (given := self.shards["size"]) != size:
            raise DataError(
                f"{self.store.url} has images of {given} pixels: set data.size={given}."
            )
        names = ["image", *(m for m in maps if m != "mask" or source not in OFFICIAL)]
        return {name: self._array(source, name, cache_dir) for name in names}

    def read_masks(self, rows: pd.DataFrame, size: int) -> np.ndarray | None:
        source = rows["source"].iloc[0]
        if "mask" not in self.shards["arrays"].get(source, {}):
            return None
        return self._array(source, "mask", None)[rows["row"].to_numpy()]

    def _array(self, source: str, name: str, cache_dir: Path | None) -> ShardedArray:
        prefixes = self.shards["arrays"].get(source, {})
        if name not in prefixes:
            option = " --saliency" if name == "saliency" else ""
            raise DataError(
                f"{self.store.url} has no {name} for every image, only {', '.join(prefixes)}: "
                f"write the shards again with `python -m datamodules shard{option}`, or set "
                f"data.{name}=false."
            )
        rows = int((self.table["source"] == source).sum())
        size = self.shards["size"]
        shape = (rows, size, size, *([3] if name == "image" else []))
        copies = self._copies(cache_dir)
        return ShardedArray(copies, prefixes[name], shape, self.shards["images"])

    def _copies(self, cache_dir: Path | None) -> LocalCopies:
        folder = self.root if self.is_local else cache_folder(self.root, cache_dir)
        if not (self.is_local or cache_dir or _is_writable(folder)):
            folder = user_cache()
        return LocalCopies(self.store, folder, self.limit)


def _parsed(store: ObjectStore) -> Mapping[str, Any]:
    """The ``dataset.yaml`` of the shards, empty if it is something else."""
    try:
        record = yaml.safe_load(store.read(DATASET))
    except (UnicodeError, yaml.YAMLError):
        return {}
    return record if isinstance(record, Mapping) else {}


def _is_complete(shards: Any) -> bool:
    """Whether the record of shards has all that is needed to read them."""
    return (
        isinstance(shards, Mapping)
        and all(type(shards.get(key)) is int and shards[key] > 0 for key in ("images", "size"))
        and isinstance(shards.get("table"), str)
        and isinstance(shards.get("arrays"), Mapping)
        and all(isinstance(prefixes, Mapping) for prefixes in shards["arrays"].values())
        and "synthetic" in shards
    )


def _is_writable(folder: Path) -> bool:
    return os.access(folder if folder.exists() else folder.parent, os.W_OK)


class ShardedArray:
    """An array (N, ...) in shards, indexed by rows as an array is; see :class:`ShardFolder`."""

    def __init__(
        self, copies: LocalCopies, prefix: str, shape: tuple[int, ...], images: int
    ) -> None:
        self.copies = copies
        self.prefix = prefix
        self.shape = shape
        self.images = images

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        number, row = np.divmod(np.asarray(rows), self.images)
        pixels = np.empty((len(number), *self.shape[1:]), np.uint8)
        for shard, opened in self._open(np.unique(number).tolist()):
            chosen = number == shard
            pixels[chosen] = opened[row[chosen]]
        return pixels

    def _open(self, shards: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        names = [f"{self.prefix}/{shard:06d}.npy" for shard in shards]
        with ThreadPoolExecutor(8) as pool:  # downloads wait for the network
            yield from zip(shards, pool.map(self.copies.open, names), strict=True)


class LocalCopies:
    """Copies of objects in a folder that the processes of a machine share.

    If the folder is the one that the objects were written to, nothing is copied.

    Args:
        store: Store of the objects.
        folder: Folder of the copies.
        limit: Bytes of arrays to hold; the least recently used are removed.
    """

    def __init__(self, store: ObjectStore, folder: Path, limit: int) -> None:
        self.store = store
        self.folder = folder
        self.limit = limit

    def open(self, name: str) -> np.ndarray:
        """The array in an object, mapped from its copy; downloaded first if there is none."""
        # A mapped copy stays readable when another process removes the file.
        return self.read(name, partial(np.load, mmap_mode="r"))

    def read(self, name: str, reader: Callable[[Path], Any]) -> Any:
        """What a function reads from the copy of an object; a damaged copy is downloaded again.

        Raises:
            DataError: The object cannot be read, or is damaged.
        """
        while True:
            path = self.fetch(name)
            try:
                return reader(path)
            except FileNotFoundError:
                continue  # removed since it was found
            except (OSError, ValueError, EOFError) as error:
                is_original = self.store.url == self.folder.resolve().as_uri()
                if is_original or self.store.size(name) == path.stat().st_size:
                    raise DataError(
                        f"{self.store.url}/{name} is damaged ({error}): remove it, and "
                        "write the shards again with `python -m datamodules shard`."
                    ) from error
                path.unlink()  # a copy that was cut off

    def fetch(self, name: str) -> Path:
        """The copy of an object, downloaded by the first process while others wait.

        Raises:
            DataError: The object cannot be read.
        """
        path = self.folder / name
        try:
            os.utime(path)  # used now
        except FileNotFoundError:
            self._download(name, path)
        except OSError:  # shards of another user or on a read-only disk, which are never removed
            pass
        return path

    def _download(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                partial = path.with_suffix(".partial")
                partial.write_bytes(self.store.read(name))
                os.replace(partial, path)
                self._remove_unused(path)

    def _remove_unused(self, newest: Path) -> None:
        stats = {path: path.stat() for path in self.folder.glob("*/*/*.npy") if path != newest}
        held = newest.stat().st_size
        for path, stat in sorted(stats.items(), key=lambda item: -item[1].st_mtime_ns):
            held += stat.st_size
            if held > self.limit:
                path.unlink(missing_ok=True)
