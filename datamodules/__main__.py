"""The data's command line: ``python -m datamodules install|verify|cache|synthesize``."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from jsonargparse import auto_cli

from datamodules.cache import release_arrays
from datamodules.dataset import DataError, read_table
from datamodules.install import install
from datamodules.memory import keep_freed_memory
from datamodules.synthetic import synthesize
from datamodules.verify import verify

FLAGS = ("--official", "--saliency")


def cache(
    root: Path = Path("data/ham10000"),
    size: int = 224,
    saliency: bool = False,
    cache_dir: Path | None = None,
) -> None:
    """Decode all pixels now, before a training or a cluster job needs them.

    Args:
        root: Where the release is installed.
        size: Height and width of the cached images.
        saliency: Whether to cache the saliency of the images too.
        cache_dir: Folder of the cache. If not given, root/cache, or ~/.cache/longderm where that
            cannot be written.
    """
    table = read_table(root)
    for source in table["source"].unique():
        maps = ["mask", *(["saliency"] if saliency else [])]
        release_arrays(root, table, source, size, maps, cache_dir)


if __name__ == "__main__":
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):  # no locale ends a command
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        # People type bare flags; jsonargparse wants to be given true or false.
        args = [f"{arg}=true" if arg in FLAGS else arg for arg in sys.argv[1:]]
        auto_cli([install, verify, cache, synthesize], args=args)
    except (DataError, OSError) as error:  # such as a folder that may not be written
        sys.exit(f"error: {error}")
