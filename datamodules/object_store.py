"""Objects in a folder of S3, Google Cloud Storage, Azure, a web server or a disk, by its URL."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from datamodules.errors import DataError


class ObjectStore:
    """A folder of objects, as ``obstore`` reads and writes it; see its documentation for options.

    Credentials and the address of a server come from the environment, for S3 for example from
    ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION`` and ``AWS_ENDPOINT_URL``.
    Requests are repeated for some minutes if the network fails.

    Args:
        url: Such as ``s3://bucket/folder``, or a folder of this machine.
    """

    def __init__(self, url: str) -> None:
        self.url = url if "://" in url else Path(url).expanduser().resolve().as_uri()

    def __getstate__(self) -> dict[str, object]:
        return {"url": self.url}  # connections are those of a process

    def read(self, name: str) -> bytes:
        """The contents of an object.

        Raises:
            DataError: It cannot be read.
        """
        try:
            return memoryview(self._obstore.get(self._store, name).bytes()).tobytes()
        except Exception as error:  # each store has its own
            raise self._failed("read", name, error) from error

    def write(self, name: str, content: bytes) -> None:
        """Write an object.

        Raises:
            DataError: It cannot be written.
        """
        try:
            self._obstore.put(self._store, name, content)
        except Exception as error:
            raise self._failed("written", name, error) from error

    def size(self, name: str) -> int | None:
        """The number of bytes of an object, None if there is none.

        Raises:
            DataError: The store does not answer.
        """
        try:
            return int(self._obstore.head(self._store, name)["size"])
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._failed("read", name, error) from error

    @cached_property
    def _obstore(self) -> Any:
        try:
            import obstore
        except ImportError as error:
            raise DataError(
                f"{self.url} needs the package obstore: pip install '.[streaming]'."
            ) from error
        return obstore

    @cached_property
    def _store(self) -> Any:
        options = {"mkdir": True} if self.url.startswith("file:") else {}
        return self._obstore.store.from_url(self.url, **options)

    def _failed(self, done: str, name: str, error: Exception) -> DataError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return DataError(
            f"{self.url}/{name} cannot be {done} ({reason}): check the address, and the "
            "credentials in the environment."
        )
