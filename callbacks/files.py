"""Atomic file replacement: a file is whole, or the one that was there before."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of ``target`` when all of it is on the disk.

    It ends as ``target`` does, because some libraries tell the format by that.
    """
    partial = target.with_name(f".partial.{target.name}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Replaces ``target`` by a text in UTF-8, whatever the locale is."""
    with replacing(target) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(target: Path, record: Mapping[str, Any]) -> None:
    """Replaces ``target`` by a record; numbers that JSON does not have are null."""
    write_text(target, json.dumps(_finite(record), indent=2, allow_nan=False) + "\n")


def write_table(target: Path, table: pd.DataFrame) -> None:
    """Replaces ``target`` by a table as CSV in UTF-8."""
    with replacing(target) as partial:
        table.to_csv(partial, index=False, encoding="utf-8", errors="backslashreplace")


def as_text(path: Path) -> str:
    r"""A file's name as UTF-8 has it; a byte that is not UTF-8 is escaped, as in ``l\xe9sion.png``.

    The bytes of the name are ``text.encode().decode("unicode_escape").encode("latin-1")``.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
