"""Decompressed pieces of a dump file, whole or in parts.

A *multistream* dump is a row of bzip2 streams: a header, then a stream for every 100 pages, then
the end (https://meta.wikimedia.org/wiki/Data_dumps/Dump_format). A stream begins on a byte, with
ten bytes that no other place has but by a chance of one in 2**76. So a part finds its first stream
without the index that is published beside the dump, and reads on until a stream begins beyond its
range. Other dumps are one part: what is in front of a page must be decompressed to come to it.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import re
from collections.abc import Iterator
from typing import IO, cast

import msgspec
import pyarrow as pa

from wit_builder import storage
from wit_builder.errors import QueryListError, StorageError
from wit_builder.queries.compressed import Guarded, damage_told
from wit_builder.ranges import open_ranges

PART_BYTES = 32 << 20
"""Compressed bytes of a part: some seconds of work, and a few million distinct grams."""

_INDEX = re.compile(r"-multistream-index\d*\.txt.*\.(?:bz2|gz|zst)$")
_BLOCK_BYTES = 4 << 20  # what is read ahead beyond a part's end is read in vain
_READ_BYTES = 256 << 10
_PIECE_BYTES = 1 << 20
_STREAM_START = re.compile(rb"BZh[1-9](?:\x31\x41\x59\x26\x53\x59|\x17\x72\x45\x38\x50\x90)")
"""How a stream begins: block size, then pi in BCD if a block follows, the root of pi if none."""
_SIGNATURE_BYTES = 10
_KINDS = (".xml", ".bz2", ".gz", ".zst")


class Part(msgspec.Struct, frozen=True):
    """The streams of a dump file that begin in ``[start, end)``, or the whole file.

    Attributes:
        place: the file, local or remote.
        start: compressed byte.
        end: compressed byte, or None for the end of the file.
    """

    place: str
    start: int = 0
    end: int | None = None


def parts(place: str, part_bytes: int | None = None) -> list[Part]:
    """Return the parts of a dump: of a large multistream file several, else the whole.

    Args:
        place: the file, local or remote.
        part_bytes: compressed bytes of a part; by default ``PART_BYTES``.

    Raises:
        QueryListError: the file is not there, or of an unknown kind.
    """
    if not place.endswith(_KINDS):
        fix = "give a .xml, .xml.bz2, .xml.gz, .xml.zst or .parquet file"
        raise QueryListError("unknown kind of dump", where=place, fix=fix)
    with _told(place):
        size = storage.size_of(place)
    part_bytes = part_bytes or PART_BYTES
    if size <= part_bytes or not place.endswith(".bz2") or not header(place):
        return [Part(place)]
    starts = range(0, size, part_bytes)
    return [Part(place, at, at + part_bytes if at != starts[-1] else None) for at in starts]


def is_index(place: str) -> bool:
    """Return whether a file is the index beside a multistream dump, which is not needed here."""
    return bool(_INDEX.search(storage.name_of(place)))


def header(place: str) -> bytes:
    """Return what the first stream of a multistream dump holds; empty for any other file."""
    with _told(place):
        first = storage.read_bytes(place, 0, _READ_BYTES)
    decoder = bz2.BZ2Decompressor()
    with contextlib.suppress(OSError):  # no bzip2 at all: reading it will say so
        text = decoder.decompress(first, _PIECE_BYTES)
        several = decoder.eof and _STREAM_START.match(decoder.unused_data)
        if several and b"<mediawiki" in text and b"<page" not in text:
            return text
    return b""


class Pieces:
    """The decompressed text of a part; iterate over it, once.

    Afterwards ``to_be_continued`` tells whether another part has what comes next.
    """

    def __init__(self, part: Part) -> None:
        self.to_be_continued = False
        self._part = part
        self._raw: IO[bytes] | None = None

    @property
    def at(self) -> int:
        """How far the compressed file has been read, in bytes."""
        return self._raw.tell() if self._raw else self._part.start

    def __iter__(self) -> Iterator[bytes]:
        """Yield the text, a megabyte at most at a time.

        Raises:
            QueryListError: not there, cut short, or damaged; says before which byte.
        """
        place = self._part.place
        with _told(place):
            self._raw = open_ranges(place, block_bytes=_BLOCK_BYTES, ahead=1)
        with self._raw as raw:
            pieces = iter(self._decompressed(raw, Guarded(place, raw)))
            while True:
                with damage_told(place, raw):
                    piece = next(pieces, b"")
                if not piece:
                    return
                yield piece

    def _decompressed(self, raw: IO[bytes], guarded: Guarded) -> Iterator[bytes]:
        place = self._part.place
        if place.endswith(".bz2"):
            raw.seek(self._part.start)
            return filter(None, self._streams(guarded))
        if place.endswith(".gz"):
            return _pieces(gzip.GzipFile(fileobj=cast("IO[bytes]", guarded)))
        if place.endswith(".zst"):
            return _zstd(guarded)
        return _pieces(guarded)

    def _streams(self, raw: Guarded) -> Iterator[bytes]:
        """Yield the text of all bzip2 streams that begin in the part."""
        left = self._first_stream(raw)
        while left or (left := raw.read(_READ_BYTES)):
            if self._part.end is not None and self.at - len(left) >= self._part.end:
                _expect_stream(left + raw.read(_SIGNATURE_BYTES))
                self.to_be_continued = True
                return
            decoder = bz2.BZ2Decompressor()
            while not decoder.eof:
                if decoder.needs_input and not left and not (left := raw.read(_READ_BYTES)):
                    raise EOFError
                yield decoder.decompress(left, _PIECE_BYTES)
                left = b""
            left = decoder.unused_data

    def _first_stream(self, raw: Guarded) -> bytes:
        """Go to the first stream that begins in the part; return what was read of it."""
        read = raw.read(_READ_BYTES)
        if self._part.start == 0:
            return read
        while True:
            if found := _STREAM_START.search(read):
                return read[found.start() :]
            if not (more := raw.read(_READ_BYTES)):
                self.to_be_continued = True  # by the part before: its last stream is the last
                return b""
            read = read[-_SIGNATURE_BYTES:] + more


def _pieces(opened: Guarded | gzip.GzipFile | pa.NativeFile) -> Iterator[bytes]:
    while piece := opened.read(_PIECE_BYTES):
        yield piece


def _zstd(raw: Guarded) -> Iterator[bytes]:
    try:
        yield from _pieces(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"))
    except OSError as error:
        if "Truncated" in str(error):
            raise EOFError from error
        raise


def _expect_stream(begins: bytes) -> None:
    """Refuse bytes after the last stream of a part that the next part would not find."""
    if begins and not _STREAM_START.match(begins):
        raise OSError("no stream where the next part begins")


@contextlib.contextmanager
def _told(place: str) -> Iterator[None]:
    """Turn a storage error into one that names the recipe's key."""
    try:
        yield
    except StorageError as error:
        what = f"cannot read the dump: {error.what}"
        fix = "check queries.wikipedia.dumps in the recipe"
        raise QueryListError(what, where=place, fix=fix) from error
