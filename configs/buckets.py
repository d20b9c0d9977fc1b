"""Requests to an object store: S3 and what speaks its protocol, Google's and Azure's.

Requests that fail with 5xx, by a lost connection or by a time-out are sent again, with growing pauses, for a bounded
time. Every failure is an OSError in the end. Credentials are in no message. `obstore` reads them from the
environment, or gets them from the machine's role:

    S3        AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
    Google    GOOGLE_SERVICE_ACCOUNT (a file)
    Azure     AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY
"""

import errno
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import obstore
from obstore import exceptions as failures
from obstore.store import from_url

from configs.state_settings import StateSettings

MAX_REQUEST_RETRIES = 8
_PART_BYTES = 16 * 1024**2
"""Larger files are sent in parts of at least this size."""
_MAX_PARTS = 9_000
"""S3 takes 10,000 parts of one object at most."""
_CONNECTIONS = 4
"""Parts of one file that are sent at once."""


class ChangedObjectError(OSError):
    """An object is not the one that was to be replaced: another writer was first."""


@dataclass(frozen=True)
class ObjectInfo:
    """What the store says of an object."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True, eq=False)  # `read_cached` tells buckets apart by identity; `_bucket` keeps one for each URL
class Bucket:
    """The objects below one URL."""

    store: Any

    def put(self, key: str, content: bytes | Path, *, new: bool = False, replaces: str | None = None) -> None:
        """Write an object, which appears whole or not at all.

        Args:
            content: bytes, or a local file.
            new: raise FileExistsError where the object exists.
            replaces: the ETag of the object that it replaces; raises ChangedObjectError where there is another or none.
        """
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        mode: Any = "create" if new else "overwrite" if replaces is None else {"e_tag": replaces}
        with _as_os_errors(key):
            obstore.put(
                self.store,
                key,
                content,
                mode=mode,
                use_multipart=size > _PART_BYTES and mode == "overwrite",
                chunk_size=max(_PART_BYTES, math.ceil(size / _MAX_PARTS)),
                max_concurrency=_CONNECTIONS,
            )

    def read(self, key: str) -> tuple[bytes, str]:
        """An object's bytes and ETag. Raises FileNotFoundError without one."""
        with _as_os_errors(key):
            found = obstore.get(self.store, key)
            return bytes(found.bytes()), _info(found.meta).etag

    def read_cached(self, key: str, etag: str) -> bytes:
        """The bytes of the object with this ETag. They stay in memory for further calls, so it is for small objects."""
        return _read_cached(self, key, etag)

    def fetch(self, key: str, target: Path) -> None:
        """Write an object's bytes into a local file.

        Raises FileNotFoundError without such an object, OSError where the answer ends too early.
        """
        with _as_os_errors(key), target.open("wb") as file:
            found = obstore.get(self.store, key)
            for chunk in found.stream(min_chunk_size=1024**2):
                file.write(chunk)
            if file.tell() != found.meta["size"]:
                raise OSError(errno.EIO, f"the object store sent {file.tell()} of {found.meta['size']} bytes", key)

    def info(self, key: str) -> ObjectInfo | None:
        """What the store says of an object; None without one."""
        with _as_os_errors(key):
            try:
                return _info(obstore.head(self.store, key))
            except FileNotFoundError:
                return None

    def below(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below a prefix, which ends at a `/` of their keys. The store is asked for 1,000 at a time."""
        with _as_os_errors(prefix):
            for page in obstore.list(self.store, prefix=prefix or None, chunk_size=1_000):
                yield from map(_info, page)

    def children(self, prefix: str) -> list[str]:
        """The names directly below a prefix that have objects below them."""
        with _as_os_errors(prefix):
            found = obstore.list_with_delimiter(self.store, prefix=prefix or None)
            return [key.rpartition("/")[2] for key in found["common_prefixes"]]

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects. One that is not there is no error."""
        if wanted := list(keys):
            with _as_os_errors(wanted[0]):
                obstore.delete(self.store, wanted)


def open_bucket(settings: StateSettings) -> Bucket:
    """The objects at `STATE_URL`.

    Raises RuntimeError in a process that was forked from one that used it: the client's threads are not there, and
    its requests would never end.
    """
    if settings.url is None:
        raise ValueError("STATE_URL is not set")
    if _client_process.setdefault("pid", os.getpid()) != os.getpid():
        raise RuntimeError("a forked process cannot use the object store: start a new process instead")
    return _bucket(settings.url, settings.endpoint, settings.timeout_seconds, settings.retry_seconds)


_client_process: dict[str, int] = {}
"""The id of the process that used the client first."""


@lru_cache(maxsize=4_096)
def _read_cached(bucket: Bucket, key: str, etag: str) -> bytes:
    return bucket.read(key)[0]


@lru_cache(maxsize=4)  # a client has a pool of connections
def _bucket(url: str, endpoint: str | None, timeout_seconds: float, retry_seconds: float) -> Bucket:
    options = {"timeout": timedelta(seconds=timeout_seconds), "connect_timeout": timedelta(seconds=5)}
    of_s3 = url.startswith("s3:") and endpoint is not None
    store = from_url(
        url.rstrip("/"),
        config=cast(Any, {"endpoint": endpoint} if of_s3 else None),
        client_options=cast(Any, {**options, "allow_http": of_s3 and str(endpoint).startswith("http:")}),
        retry_config={
            "max_retries": MAX_REQUEST_RETRIES,
            "retry_timeout": timedelta(seconds=retry_seconds),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
        },
    )
    return Bucket(store)


def _info(meta: Any) -> ObjectInfo:
    # Where a store sends no ETag, the time of the last change is what tells versions apart.
    return ObjectInfo(meta["path"], meta["size"], meta["e_tag"] or str(meta["last_modified"]))


@contextmanager
def _as_os_errors(key: str) -> Iterator[None]:
    try:
        yield
    except failures.AlreadyExistsError as error:
        raise FileExistsError(errno.EEXIST, "the object exists already", key) from error
    except failures.PreconditionError as error:
        raise ChangedObjectError(errno.EAGAIN, "another writer was first", key) from error
    except (failures.PermissionDeniedError, failures.UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, "the object store refuses these credentials", key) from error
    except failures.BaseError as error:
        # Its first line names the request; what follows is for the SDK's developers.
        raise OSError(errno.EIO, f"the object store failed: {str(error).splitlines()[0]}", key) from error
