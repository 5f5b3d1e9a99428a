"""Bytes of a source that may be compressed; one cut short or damaged says at which byte."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import zlib
from collections.abc import Iterator
from typing import IO, cast

from wit_builder import storage
from wit_builder.errors import QueryListError, StorageError

CHUNK_BYTES = 4 << 20

AGAIN = "download it again, and compare with the checksums published beside it"


def chunks(place: str, source: str, fix: str) -> Iterator[bytes]:
    """Yield a file's bytes, some 4 MiB at a time, decompressed if it ends in ``.gz`` or ``.bz2``.

    Args:
        place: the file, local or remote.
        source: what it is, for errors: "a custom list".
        fix: what to do if it cannot be opened.

    Raises:
        QueryListError: not there, cut short, or damaged.
        StorageError: what is there cannot be read just now.
    """
    try:
        raw = storage.open_read(place)
    except StorageError as error:
        raise QueryListError(f"cannot read {source}: {error.what}", where=place, fix=fix) from error
    with raw, contextlib.closing(_decompressed(place, raw)) as stream:
        while True:
            with damage_told(place, raw):
                chunk = stream.read(CHUNK_BYTES)
            if not chunk:
                return
            yield chunk


@contextlib.contextmanager
def damage_told(place: str, raw: IO[bytes]) -> Iterator[None]:
    """Turn what a decompressor finds into an error that names the file and the byte.

    Args:
        place: the file.
        raw: the stream of it that the decompressor reads.

    Raises:
        QueryListError: cut short, or damaged.
    """
    try:
        yield
    except EOFError as error:
        where = f"{place}, byte {raw.tell()}"
        raise QueryListError("the file is cut short", where=where, fix=AGAIN) from error
    except (OSError, zlib.error) as error:
        where = f"{place}, before byte {raw.tell()}"
        what = f"the file cannot be decompressed: {error}"
        raise QueryListError(what, where=where, fix=AGAIN) from error


class Guarded:
    """A stream whose own failures are ``StorageError``; what else fails is the decompressor's."""

    closed = False

    def __init__(self, place: str, raw: IO[bytes]) -> None:
        self._place, self._raw = place, raw

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes.

        Raises:
            StorageError: they cannot be read just now.
        """
        with storage.translated(self._place, "read"):
            return self._raw.read(size)

    def close(self) -> None:
        """Do nothing: who opened the stream closes it."""


def _decompressed(place: str, raw: IO[bytes]) -> IO[bytes]:
    guarded = cast("IO[bytes]", Guarded(place, raw))
    if place.endswith(".bz2"):
        return bz2.BZ2File(guarded)
    if place.endswith(".gz"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=guarded))
    return guarded
