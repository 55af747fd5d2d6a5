"""Freed memory, which glibc keeps in the process for the next training step, or returns."""

from __future__ import annotations

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MAX_INT = 2**31 - 1
OLD_MAX_THRESHOLD = 2**25  # bytes; older releases of glibc refuse larger ones


def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks instead of returning them to the system.

    Otherwise the system clears the same pages again for every step. No-op without glibc.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        # Setting one stops glibc from adjusting the other, which would stay at 128 KiB.
        if not mallopt(M_MMAP_THRESHOLD, MAX_INT):
            mallopt(M_MMAP_THRESHOLD, OLD_MAX_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, MAX_INT)


def return_freed_memory() -> None:
    """Make glibc return all freed memory to the system once. No-op without glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
