"""What is published where, and downloads that survive dropped connections and are checked."""

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

from datamodules.dataset import METADATA, DataError

TRIES = 6  # in a row without a single new byte
BACKOFF = 1.0  # seconds before the second try, doubled before each further one
TIMEOUT = 60.0  # seconds of silence
PASSING = {408, 416, 429}  # besides 5xx, the HTTP errors that another try may cure


@dataclass(frozen=True)
class Remote:
    """A published file.

    Args:
        name: Its file name.
        url: Where it is. Redirects are followed, and asked for anew at every resumption, because
            the Dataverse redirects to addresses that expire after an hour.
        size: Bytes, where published.
        md5: Hexadecimal digest, where published.
    """

    name: str
    url: str
    size: int | None = None
    md5: str | None = None


def _dataverse(name: str, file: str, md5: str, size: int | None = None) -> Remote:
    return Remote(name, f"https://dataverse.harvard.edu/api/access/datafile/{file}", size, md5)


def _isic(name: str, md5: str | None = None) -> Remote:
    return Remote(name, f"https://isic-challenge-data.s3.amazonaws.com/2018/{name}", None, md5)


# doi:10.7910/DVN/DBW86T, version 4.0, and the bucket of the ISIC challenges. The Dataverse converts
# tables, so that their checksums differ, unless it is asked for the original.
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
    """A progress bar with bytes, speed and the time that is left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )


def fetch(remote: Remote, folder: Path) -> Path:
    """Downloads ``remote`` into ``folder``, going on where an earlier try stopped.

    Returns:
        The file, whose size and MD5 are those published.

    Raises:
        DataError: The server refuses or stays away, or what came is not what was published.
    """
    path = folder / remote.name
    if path.exists():  # it was checked before it got its name
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{remote.name}.part"
    with byte_bar() as bar:
        _persist(remote, part, bar)
    _check(remote, part)
    os.replace(part, path)
    return path


def _persist(remote: Remote, part: Path, bar: Progress) -> None:
    task = bar.add_task(remote.name, total=remote.size)
    failures, most = 0, _size(part)
    while True:
        try:
            return _go_on(remote, part, bar, task)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 and error.code not in PASSING:
                raise DataError(f"{_failed(remote, error)}: get it by hand.") from error
            if error.code == 416:  # what we have is not the beginning of what is there
                part.unlink(missing_ok=True)
            cause: Exception = error
        except (OSError, http.client.HTTPException) as error:
            cause = error
        # A shaky line may break any number of times, as long as it brings something.
        failures = 1 if _size(part) > most else failures + 1
        most = max(most, _size(part))
        if failures >= TRIES:
            raise DataError(f"{_failed(remote, cause)}: what came is kept, try later.") from cause
        time.sleep(BACKOFF * 2 ** (failures - 1))


def _go_on(remote: Remote, part: Path, bar: Progress, task: TaskID) -> None:
    have = _size(part)
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
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(2**18):
                file.write(chunk)
                bar.advance(task, len(chunk))
    if whole is not None and _size(part) < whole:  # urllib takes a dropped connection for the end
        raise ConnectionError(f"the connection ended after {_size(part):,} of {whole:,} bytes")


def _check(remote: Remote, part: Path) -> None:
    size = _size(part)
    with part.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if size != (remote.size or size) or md5 != (remote.md5 or md5):
        part.unlink()  # the next try starts clean
        raise DataError(
            f"{remote.url} sent a {remote.name} of {size:,} bytes with MD5 {md5}, but published "
            f"are {_published(remote)}; it was removed, so try again."
        )
    if remote.size is None or remote.md5 is None:
        print(f"{remote.name}: published are {_published(remote)}, so only that was checked.")


def _published(remote: Remote) -> str:
    size = "no size" if remote.size is None else f"{remote.size:,} bytes"
    return f"{size} and {'no MD5' if remote.md5 is None else f'MD5 {remote.md5}'}"


def _failed(remote: Remote, cause: Exception) -> str:
    return f"{remote.name} cannot be downloaded from {remote.url} ({cause})"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
