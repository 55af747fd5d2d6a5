"""The command line of the data: ``python -m datamodules install|verify|cache|shard|...``."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

from jsonargparse import auto_cli

from datamodules.adopt import adopt
from datamodules.cache import cached_arrays
from datamodules.errors import DataError
from datamodules.install import install
from datamodules.labeled_images import open_folder
from datamodules.memory import keep_freed_memory
from datamodules.shards import shard
from datamodules.synthetic import synthesize
from datamodules.verify import verify

FLAGS = ("--official", "--saliency", "--skip", "--overwrite")


def cache(
    root: Path = Path("data/ham10000"),
    size: int = 224,
    saliency: bool = False,
    cache_dir: Path | None = None,
    processes: int = 1,
) -> None:
    """Decode all pixels in advance, for example before submitting cluster jobs.

    Args:
        root: Folder of the data set.
        size: Height and width of the cached images, in pixels.
        saliency: Whether to cache the saliency of the images as well.
        cache_dir: Folder of the cache. By default root/cache, or ~/.cache/longderm if that is not
            writable.
        processes: Number of processes. 1 uses threads, one per core, which suffices up to about
            16 cores.
    """
    data = open_folder(root)
    masks = data.file_names("mask", data.table).notna().any()
    maps = [*(["mask"] if masks else []), *(["saliency"] if saliency else [])]
    for source in data.table["source"].unique():
        cached_arrays(data, source, size, maps, cache_dir, processes)


if __name__ == "__main__":
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):  # so that no locale stops a command
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        # Users type bare flags; jsonargparse expects true or false.
        args = [f"{arg}=true" if arg in FLAGS else arg for arg in sys.argv[1:]]
        auto_cli([install, verify, cache, shard, synthesize, adopt], args=args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output left, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (DataError, OSError) as error:  # such as a folder that is not writable
        sys.exit(f"error: {error}")
