"""The published files, and downloads that resume after dropped connections and are verified."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from datamodules.errors import DataError
from datamodules.layout import METADATA

MAX_FAILURES = 6  # in a row, without a single new byte
BACKOFF = 1.0  # seconds before the second attempt, doubled before each further one
TIMEOUT = 60.0  # seconds of silence
TRANSIENT = {408, 416, 429}  # HTTP errors that another attempt may cure, besides 5xx


@dataclass(frozen=True)
class Remote:
    """A published file.

    Args:
        name: File name.
        url: Address. Redirects are resolved again at every resumption, because the Dataverse
            redirects to addresses that expire after an hour.
        size: Size in bytes, if published.
        md5: Hexadecimal MD5 digest, if published.
    """

    name: str
    url: str
    size: int | None = None
    md5: str | None = None


def _dataverse(name: str, file: str, md5: str, size: int | None = None) -> Remote:
    return Remote(name, f"https://dataverse.harvard.edu/api/access/datafile/{file}", size, md5)


def _isic(name: str, md5: str | None = None) -> Remote:
    return Remote(name, f"https://isic-challenge-data.s3.amazonaws.com/2018/{name}", None, md5)


# doi:10.7910/DVN/DBW86T, version 4.0, and the bucket of the ISIC challenges. Without
# format=original the Dataverse converts tables, which changes their checksums.
PUBLISHED = (
    _dataverse(METADATA, "4338392?format=original", "8f85fb1aa29d80a2797247e434deb79d", 690_218),
    _dataverse(
        "HAM10000_images_part_1.zip", "3172585", "4639bfa73ab251610530a97c898e6e46", 1_366_522_108
    ),
    _dataverse(
        "HAM10000_images_part_2.zip", "3172584", "da43d6cc50f6613013be07e8986b384b", 1_403_566_547
    ),
    _dataverse(
        "HAM10000_segmentations_lesion_tschandl.zip", "3838943", "6e8d252e09cfdb0189199f15985a5b84"
    ),
    _isic("ISIC2018_Task3_Validation_Input.zip", "c1fbdd4f5468b0d67c61a1b2def87077"),
    _isic("ISIC2018_Task3_Validation_GroundTruth.zip"),
    _dataverse("ISIC2018_Task3_Test_Images.zip", "3855824", "0488b6f65849e310857d9207daa55a21"),
    _dataverse(
        "ISIC2018_Task3_Test_GroundTruth.csv",
        "6924466?format=original",
        "2b5663aacc9644740f27e355cf7f369a",
    ),
)
REMOTES = {remote.name: remote for remote in PUBLISHED}


def byte_bar() -> Progress:
    """A progress bar with bytes, speed and remaining time."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )


def fetch(remote: Remote, folder: Path) -> Path:
    """Download ``remote`` into ``folder``, resuming an interrupted download.

    Returns:
        The downloaded file, whose size and MD5 are the published ones.

    Raises:
        DataError: The server refuses or does not respond, or the downloaded file is not the
            published one.
    """
    path = folder / remote.name
    if path.exists():  # it was verified before it got its name
        return path
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{remote.name}.part"
    with byte_bar() as bar:
        _persist(remote, unfinished, bar)
    _check(remote, unfinished)
    os.replace(unfinished, path)
    return path


def _persist(remote: Remote, unfinished: Path, bar: Progress) -> None:
    task = bar.add_task(remote.name, total=remote.size)
    failures = 0
    longest = _size(unfinished)
    while True:
        try:
            return _resume(remote, unfinished, bar, task)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 and error.code not in TRANSIENT:
                raise DataError(f"{_failed(remote, error)}: download it by hand.") from error
            if error.code == 416:  # our file is not the beginning of the published file
                unfinished.unlink(missing_ok=True)
            cause: Exception = error
        except (OSError, http.client.HTTPException) as error:
            cause = error
        # The connection may break any number of times, as long as some bytes arrive.
        failures = 1 if _size(unfinished) > longest else failures + 1
        longest = max(longest, _size(unfinished))
        if failures >= MAX_FAILURES:
            raise DataError(
                f"{_failed(remote, cause)}. Try again later: the download will resume."
            ) from cause
        time.sleep(BACKOFF * 2 ** (failures - 1))


def _resume(remote: Remote, unfinished: Path, bar: Progress, task: TaskID) -> None:
    have = _size(unfinished)
    if have and have == remote.size:
        return
    request = urllib.request.Request(remote.url, headers={"User-Agent": "longderm"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        resumed = response.status == 206
        if not resumed:  # a server without ranges sends everything again
            have = 0
        length = response.headers["Content-Length"]
        whole = have + int(length) if length else remote.size
        bar.update(task, completed=have, total=whole)
        with unfinished.open("ab" if resumed else "wb") as file:
            while chunk := response.read(2**18):
                file.write(chunk)
                bar.advance(task, len(chunk))
    size = _size(unfinished)
    if whole is not None and size < whole:  # urllib does not notice dropped connections
        raise ConnectionError(f"the connection ended after {size:,} of {whole:,} bytes")


def _check(remote: Remote, unfinished: Path) -> None:
    size = _size(unfinished)
    with unfinished.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if size != (remote.size or size) or md5 != (remote.md5 or md5):
        unfinished.unlink()  # so that the next attempt starts afresh
        raise DataError(
            f"{remote.name} from {remote.url} has {size:,} bytes and MD5 {md5}, expected "
            f"{_expected(remote)}. The download was removed: try again."
        )
    published = {"size": remote.size, "MD5": remote.md5}
    if unknown := [name for name, value in published.items() if value is None]:
        print(f"Note: {remote.name} was not checked by {' or '.join(unknown)}: none is published.")


def _expected(remote: Remote) -> str:
    size = "any size" if remote.size is None else f"{remote.size:,} bytes"
    return f"{size} and {'any MD5' if remote.md5 is None else f'MD5 {remote.md5}'}"


def _failed(remote: Remote, cause: Exception) -> str:
    return f"{remote.name} cannot be downloaded from {remote.url} ({cause})"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
