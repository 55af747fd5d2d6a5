"""Reading of comma-separated values in the encodings and dialects of common programs."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from datamodules.errors import DataError

BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # starts with the byte order mark of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SEPARATORS = ",\t;|"
NAMES = ("lesion_id", "image_id", "image", "dx")  # never numbers, even if they look like it
UNKNOWN = ["", "unknown", "none", "nan", "na", "n/a", "null", "-", "?"]


def read_csv(path: Path, names: Sequence[str] = NAMES, always: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table, with numbers as numbers, and ids and classes as strings.

    The file may be in UTF-8, UTF-16, UTF-32 or Latin-1, separated by commas, tabs, semicolons or
    bars.

    Args:
        path: Table to read.
        names: Columns of ids and classes.
        always: Those of them in which only an empty value is missing, because an image or a class
            may be called NA or None.

    Raises:
        DataError: The file is unreadable, is not a table, or has a row that is longer or shorter
            than the header.
    """
    with _readable(path):
        text = _table_text(path)
        separator = _separator(text)
        content = text.encode()
    if not _is_plain(content, separator):
        file = io.StringIO()
        csv.writer(file).writerows(rows(path))
        content = file.getvalue().encode()
        separator = ","
    types = dict.fromkeys(names, str)
    table = pd.read_csv(io.BytesIO(content), sep=separator, dtype=types, low_memory=False)
    for name in {*always} & {name for name in table if table[name].isna().any()}:
        written = pd.read_csv(
            io.BytesIO(content), sep=separator, usecols=[name], dtype=str, keep_default_na=False
        )[name]
        table[name] = written.where(written != "")
    return table


def _is_plain(content: bytes, separator: str) -> bool:
    """Whether all lines are rows of as many values as the header names, none of them quoted.

    Pandas reads such a million rows four times as fast as :func:`rows` and gets the same values.
    """
    header, _, _ = content.partition(b"\n")
    names = header.decode().split(separator)
    clean = all(name and name == name.strip() for name in names)
    if not clean or separator == ";" or b'"' in content or b"\0" in content:
        return False
    letters = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(letters == ord("\n"))
    if not content.endswith(b"\n"):
        ends = np.append(ends, len(letters))
    starts = np.concatenate([[0], ends[:-1] + 1])
    is_separator = letters == ord(separator)
    separators = np.add.reduceat(is_separator, starts, dtype=np.int32)
    written = (letters > ord(" ")) & (letters < 127) & ~is_separator
    filled = np.add.reduceat(written, starts, dtype=np.int32)
    short = int((ends - starts).max()) < csv.field_size_limit()
    return short and bool(filled.all() and (separators == len(names) - 1).all())


def rows(path: Path, origin: Path | None = None) -> list[list[str]]:
    """The header and the rows of a table, all of the same length.

    Args:
        path: Table to read.
        origin: Name for messages, if ``path`` is a copy of this file.

    Raises:
        DataError: See :func:`read_csv`.
    """
    name = origin or path
    with _readable(name):
        text = _table_text(path)
        separator = _separator(text)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        table = [row for row in lines if any(cell.strip() for cell in row)]
        if separator == ";":  # then the comma is the decimal point
            table = [[re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", cell) for cell in row] for row in table]
    if not table:
        raise DataError(f"{name} is empty: restore it, or install it again.")
    header = [cell.strip() for cell in table[0]]
    while header and not header[-1]:  # each line ends with a separator
        header.pop()
    return [header, *(_fitted(row, header, name) for row in table[1:])]


@contextmanager
def _readable(name: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}.") from error
    except (UnicodeError, csv.Error) as error:
        raise DataError(
            f"{name} is not a table ({error}): save it as comma-separated values in UTF-8."
        ) from error


def _table_text(path: Path) -> str:
    text = _text(path.read_bytes())
    first, _, rest = text.partition("\n")
    return rest if first.lower().startswith("sep=") else text  # a note for Excel


def _fitted(row: list[str], header: list[str], name: Path) -> list[str]:
    if len(row) < len(header) or any(row[len(header) :]):
        raise DataError(
            f"{name} has a damaged row with {len(row)} values for {len(header)} columns: "
            f"correct it. It starts with {','.join(row)[:60]!r}."
        )
    return row[: len(header)]


def _text(content: bytes) -> str:
    for mark, encoding in BOMS.items():
        if content.startswith(mark):
            return _lines(content.removeprefix(codecs.BOM_UTF8).decode(encoding))
    if content.startswith(b"PK\x03\x04") or content.startswith(b"\xd0\xcf\x11\xe0"):
        raise UnicodeError("it is a spreadsheet or an archive")
    if b"\0" in content[:200]:  # UTF-16 without a byte order mark
        even = content[:200:2].count(b"\0") > content[1:200:2].count(b"\0")
        return _lines(content.decode("utf-16-be" if even else "utf-16-le"))
    try:
        return _lines(content.decode())
    except UnicodeDecodeError:
        return _lines(content.decode("latin-1"))


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _separator(text: str) -> str:
    header = next((line for line in text.split("\n") if line.strip()), "")
    return max(SEPARATORS, key=header.count)
