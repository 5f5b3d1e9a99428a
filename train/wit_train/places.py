"""Where shards lie, and how a range of one gets into memory: local files, or any file system.

Buckets have a client of their own, in ``bucket``.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from wit_builder import storage
from wit_builder.errors import GoneError, StorageError

_OPEN_FILES = 128
_PASSING_ERRNO = {errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN}
"""What a network's file system answers while its server is away, or a file was replaced."""

_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


class PassingError(Exception):
    """A read failed for a reason that may pass.

    Args:
        what: went wrong; no secret, no place.
        wait_s: how long the server asks to be left alone.
        at_once: an idle connection was closed meanwhile: no reason to wait.
    """

    def __init__(self, what: str, *, wait_s: float = 0.0, at_once: bool = False) -> None:
        super().__init__(what)
        self.wait_s, self.at_once = wait_s, at_once


class Place(Protocol):
    """A file system that shards lie on; used by many threads at once."""

    def read(self, url: str, offset: int, into: memoryview, until: float) -> int:
        """Fill ``into`` from a byte of a file on; return how many bytes: fewer only at its end.

        Args:
            url: the file.
            offset: its first byte that is wanted.
            into: where the bytes go.
            until: by ``time.monotonic()``, when to give up.

        Raises:
            PassingError: the same may go well another time.
            GoneError: there is no such file.
            StorageError: it cannot be read.
        """

    def renew(self) -> None:
        """Let go of open files and connections: what is read next comes through new ones."""

    def close(self) -> None:
        """End reads under way as soon as can be, and let go of everything."""


def place_for(url: str, stall_s: float) -> Place:
    """Return what reads files like this one.

    Raises:
        StorageError: unknown kind of place, or no credentials for it.
    """
    if not storage.is_remote(url):
        return Files()
    if url.startswith(("s3://", "s3a://")):
        from wit_train import bucket  # noqa: PLC0415 - needs botocore, which is an optional part

        if bucket.is_plain(url):
            return bucket.Bucket(url, stall_s)
    return Anywhere()


@dataclass
class _Open:
    """An open file, and how many threads read it."""

    descriptor: int
    readers: int = 0

    def is_gone(self) -> bool:
        """Return whether the file has been removed, or another one published under its name."""
        return os.fstat(self.descriptor).st_nlink == 0


class Files:
    """Local files; the last ones read stay open, as opening is slow on a network's file system."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, url: str, offset: int, into: memoryview, until: float) -> int:
        """See ``Place``; a read of a local file cannot be cut short."""
        del until
        try:
            with self._opened(url) as descriptor:
                return _fill(descriptor, offset, into)
        except OSError as error:
            if error.errno in _PASSING_ERRNO:
                self.renew()
                raise PassingError(error.strerror or "") from error
            if error.errno == errno.ENOENT:
                fix = "copy it again; `wit verify` says what else is missing"
                raise GoneError("there is no such shard", where=url, fix=fix) from error
            with storage.translated(url, "read"):
                raise

    @contextmanager
    def _opened(self, url: str) -> Iterator[int]:
        with self._lock:
            file = self._open.get(url)
            if file is None or file.is_gone():
                self._drop(url)
                _, path = storage.filesystem(url)
                file = self._open[url] = _Open(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            self._open.move_to_end(url)
            file.readers += 1
        try:
            yield file.descriptor
        finally:
            with self._lock:
                file.readers -= 1
                if not file.readers and self._open.get(url) is not file:
                    os.close(file.descriptor)
                while len(self._open) > _OPEN_FILES:
                    self._drop(next(iter(self._open)))

    def _drop(self, url: str) -> None:
        """Forget an open file; the last thread that reads it closes it."""
        file = self._open.pop(url, None)
        if file and not file.readers:
            os.close(file.descriptor)

    def renew(self) -> None:
        """See ``Place``."""
        with self._lock:
            for url in list(self._open):
                self._drop(url)

    close = renew


def _fill(descriptor: int, offset: int, into: memoryview) -> int:
    at = 0
    while at < len(into):
        count = os.preadv(descriptor, [into[at:]], offset + at)
        if not count:
            break
        at += count
    return at


class Anywhere:
    """Any file system of fsspec: the web, for example. It takes a copy more."""

    def read(self, url: str, offset: int, into: memoryview, until: float) -> int:
        """See ``Place``; how long a read takes is up to the file system."""
        del until
        try:
            data = storage.read_bytes(url, offset, offset + len(into))
        except StorageError as error:
            if may_pass(error):
                raise PassingError(error.what) from error
            raise
        if len(data) > len(into):
            raise StorageError(
                "the server does not serve ranges of a file",
                where=storage.redact(url),
                fix="download the shards, and name the folder",
            )
        into[: len(data)] = data
        return len(data)

    def renew(self) -> None:
        """See ``Place``; it holds nothing."""

    close = renew


def may_pass(error: StorageError) -> bool:
    """Return whether the same may go well another time, by what caused the error."""
    cause = error.__cause__
    status = getattr(cause, "status", None)
    if isinstance(status, int) and 400 <= status < 600:
        return passing_status(status)
    if cause is None or isinstance(cause, _LASTING):
        return False
    return type(cause).__name__ not in {"InvalidURL", "NoCredentialsError", "ValueError"}


def passing_status(status: int) -> bool:
    """Return whether another answer may come another time."""
    return status in {408, 425, 429} or (status >= 500 and status not in {501, 505})


def root_of(url: str) -> str:
    """Return what a place must serve to serve this: scheme and host or bucket."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if storage.is_remote(url) else ""
