"""Standard output whose reader may leave early."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class Leavable(io.FileIO):
    """Output to a pipe. When its reader is gone, as in ``| head``, the rest is discarded."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def outlive_readers() -> None:
    """Let the process carry on, and write its results, when nobody reads its output any more."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is not io.TextIOWrapper:  # captured or replaced by others
            continue
        stream.flush()
        buffer = io.BufferedWriter(Leavable(stream.fileno(), "w", closefd=False))
        text = io.TextIOWrapper(
            buffer,
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, text)
