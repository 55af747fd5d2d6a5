"""Atomic file replacement: after a crash a file is either the new one or the old one, whole."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a path to write to, which replaces ``target`` once it is completely on the disk.

    The path keeps the suffix of ``target``, from which some libraries infer the format.
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
    """Replace ``target`` by a text, in UTF-8 whatever the locale."""
    with replacing(target) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(target: Path, record: Mapping[str, Any]) -> None:
    """Replace ``target`` by a record as JSON; NaN and infinite numbers become null."""
    write_text(target, json.dumps(_finite(record), indent=2, allow_nan=False) + "\n")


def write_table(target: Path, table: pd.DataFrame) -> None:
    """Replace ``target`` by a table as CSV in UTF-8."""
    with replacing(target) as partial:
        table.to_csv(partial, index=False, encoding="utf-8", errors="backslashreplace")


def as_text(path: Path) -> str:
    r"""Decode a file's name as UTF-8, other bytes escaped as in ``l\xe9sion.png``.

    ``text.encode().decode("unicode_escape").encode("latin-1")`` restores the name's bytes.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
