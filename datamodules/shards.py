"""Shards, the cached pixels of some hundred images each: how they are written."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import yaml

from datamodules.cache import Failure, digest_of, read_row, rows_of, unreadable
from datamodules.data_folder import DataFolder
from datamodules.errors import DataError
from datamodules.kept_table import write_arrow
from datamodules.labeled_images import open_folder
from datamodules.object_store import ObjectStore
from datamodules.progress import track
from datamodules.shard_folder import SHARDS
from datamodules.splits import Split
from datamodules.table_columns import DATASET


def shard(
    folder: Path,
    to: str,
    size: int = 224,
    saliency: bool = False,
    split: Split | None = None,
    images: int = 512,
    processes: int = 1,
) -> None:
    """Write the pixels of a data set as shards, for training from object storage.

    Shards that were already written are kept, so an interrupted command resumes.

    Args:
        folder: Folder of the data set.
        to: Folder of the shards: a URL such as s3://bucket/folder, or a path.
        size: Height and width of the images, in pixels.
        saliency: Whether to write the saliency of the images as well.
        split: Split whose validation and test images get shards of their own, so that evaluation
            reads no others. Runs with another split work, and read more shards.
        images: Images per shard, at least 1; 512 of 224 pixels are 77 MB.
        processes: Number of processes that decode and write. 1 uses threads, one per core.
    """
    for name, value in (("size", size), ("images", images), ("processes", processes)):
        if value < 1:
            raise DataError(f"--{name}={value}: set it to 1 or more.")
    data = open_folder(folder)
    store = ObjectStore(to)
    table = _arranged(data.table, split)
    written: dict[str, dict[str, str]] = {}
    threads = max(1, (os.cpu_count() or 1) // processes)
    with _pool(processes) as pool:
        for source in table["source"].unique():
            rows = rows_of(table, source).sort_values("row")
            written[str(source)] = {}
            for name in _names(data, rows, saliency):
                files = data.locate("mask" if name == "mask" else "image", rows)
                prefix = f"{source}/{name}-{size}-{images}-{digest_of(name, files)}"
                chunks = [files[at : at + images] for at in range(0, len(files), images)]
                write = partial(_write_shard, store, prefix, name, size, threads)
                done = track(pool.map(write, enumerate(chunks)), f"Writing {prefix}", len(chunks))
                if failed := dict(failure for failures in done for failure in failures):
                    raise unreadable(name, failed, len(files))
                written[str(source)][name] = prefix
    columns = [name for name in table if not str(name).endswith("_file")]
    content = {"table": _write_table(store, table[columns]), "arrays": written}
    shards = content | {"size": size, "images": images, "synthetic": data.synthetic}
    record = data.classes.record() | {SHARDS: shards}
    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
    store.write(DATASET, text.encode())  # last, so that incomplete shards are not used


def _arranged(table: pd.DataFrame, split: Split | None) -> pd.DataFrame:
    """The table with its rows in the order of the shards: by split, and shuffled within it.

    Shuffled, because neighbors in a table are often from one hospital or of one class.
    """
    group = pd.factorize(split(table))[0] if split else np.zeros(len(table), np.int64)
    shuffled = np.random.default_rng(0).permutation(len(table))
    row = pd.Series(np.arange(len(table)), table.index[np.lexsort([shuffled, group])])
    return table.assign(row=row.groupby(table["source"]).cumcount())


def _names(data: DataFolder, rows: pd.DataFrame, saliency: bool) -> list[str]:
    masks = data.file_names("mask", rows).notna().all()
    return ["image", *(["mask"] if masks else []), *(["saliency"] if saliency else [])]


def _pool(processes: int) -> Executor:
    if processes == 1:
        return ThreadPoolExecutor(1)  # each shard has threads of its own
    return ProcessPoolExecutor(processes, get_context("spawn"))


def _write_shard(
    store: ObjectStore,
    prefix: str,
    name: str,
    size: int,
    threads: int,
    numbered: tuple[int, Sequence[str]],
) -> list[tuple[Path, Failure]]:
    """Write a shard unless it exists; return the files that could not be read."""
    number, files = numbered
    rows = np.zeros((len(files), size, size, *([3] if name == "image" else [])), np.uint8)
    content = io.BytesIO()
    np.save(content, rows)
    if store.size(f"{prefix}/{number:06d}.npy") == len(content.getvalue()):
        return []
    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(partial(read_row, rows, name, size), enumerate(files)))
    if not (failed := [failure for failure in done if failure]):
        content = io.BytesIO()
        np.save(content, rows)
        store.write(f"{prefix}/{number:06d}.npy", content.getvalue())
    return failed


def _write_table(store: ObjectStore, table: pd.DataFrame) -> str:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "table.arrow"
        write_arrow(file, table, {})
        content = file.read_bytes()
    name = f"table-{hashlib.sha256(content).hexdigest()[:12]}.arrow"
    store.write(name, content)
    return name
