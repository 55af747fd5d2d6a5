"""Memory that every step frees and the next one wants again."""

from __future__ import annotations

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 2**31 - 1
HALF_A_HEAP = 2**25  # bytes; older releases of glibc refuse a threshold above it


def keep_freed_memory() -> None:
    """Has glibc keep large blocks that are freed, instead of returning them to the system.

    The system clears the pages that it gives out again. Without glibc nothing happens.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        # The second call ends glibc's own adjustment of the first, which would stay at 128 KiB.
        if not mallopt(M_MMAP_THRESHOLD, LARGEST):
            mallopt(M_MMAP_THRESHOLD, HALF_A_HEAP)
        mallopt(M_TRIM_THRESHOLD, LARGEST)
