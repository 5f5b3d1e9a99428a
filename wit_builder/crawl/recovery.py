"""Where a broken WARC file is broken, and where it can be read again.

A WARC file is records one after the other. Compressed, each record is a gzip member of its own
(WARC 1.1, annex D), which is what makes a fault local: the next member can be found and read. A
file compressed as one stream is read too, but ends at its first fault in the compression.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable
from typing import IO, Protocol

from wit_builder import storage

BROKEN = (OSError, EOFError, ValueError, zlib.error)
"""What readers raise about bytes that are not what they should be."""

_WARC = b"WARC/1."
_GZIP = b"\x1f\x8b\x08"
_END = b"\r\n\r\n"
_CHUNK_BYTES = 1 << 16
_SCAN_BYTES = 1 << 20
_MAX_HEADER_BYTES = 1 << 16
_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class Stream(Protocol):
    """What is read from: bytes at a place."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to so many bytes; none at the end."""

    def seek(self, at: int, whence: int = 0, /) -> int:
        """Go to a place."""

    def tell(self) -> int:
        """Return the place."""

    def close(self) -> None:
        """End reading."""


class Archive(Protocol):
    """A WARC file that can be gone through by its own structure, without FastWARC."""

    stream: Stream

    def next_record(self, start: int) -> int | None:
        """Return the first place from ``start`` on where a record begins."""

    def first_fault(self, start: int) -> int | None:
        """Return where the first record that is not whole begins, from one at ``start`` on."""


def opened(stream: IO[bytes], place: str) -> Archive:
    """Return the archive in a stream: members, plain records, or records in one gzip stream."""
    guarded = _Guarded(stream, place)
    begin = guarded.read(_CHUNK_BYTES)
    if begin.startswith(_WARC):
        return _Plain(guarded)
    if begin.startswith(_GZIP) and _is_solid(begin):
        guarded.seek(0)
        return _Plain(gzip.GzipFile(fileobj=guarded, mode="rb"))
    return _Members(guarded)


class _Guarded:
    """A stream whose own failures are ``StorageError``: never taken for a broken record."""

    def __init__(self, stream: IO[bytes], place: str) -> None:
        self._stream, self._place = stream, place

    def read(self, size: int = -1, /) -> bytes:
        with storage.translated(self._place, "read"):
            return self._stream.read(size)

    def seek(self, at: int, whence: int = 0, /) -> int:
        with storage.translated(self._place, "read"):
            return self._stream.seek(at, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()


class _Members:
    """One gzip member a record."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def next_record(self, start: int) -> int | None:
        return _scan(self.stream, start, re.compile(re.escape(_GZIP)), _inflates_to_record)

    def first_fault(self, start: int) -> int | None:
        at = start
        while True:
            self.stream.seek(at)
            try:
                end = self._end_of_member(at)
            except zlib.error:
                return at
            if end is None:
                return at
            if end == at:
                return None
            at = end

    def _end_of_member(self, at: int) -> int | None:
        """Return where the member ends, ``at`` at the file's end, None if it is not one record."""
        inflater = zlib.decompressobj(31)
        head, size, place = b"", 0, at
        while not inflater.eof:
            chunk = self.stream.read(_CHUNK_BYTES)
            if not chunk:
                return at if place == at else None
            place += len(chunk)
            while chunk and not inflater.eof:  # in steps: a member may inflate a thousandfold
                out = inflater.decompress(chunk, _SCAN_BYTES)
                chunk = inflater.unconsumed_tail
                head = head if len(head) >= _MAX_HEADER_BYTES else head + out
                size += len(out)
        stated = _stated_size(head)
        if stated is None or not 0 <= size - stated <= len(_END):
            return None
        return place - len(inflater.unused_data)


class _Plain:
    """Records as they are; also over the content of a file compressed as one stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def next_record(self, start: int) -> int | None:
        try:
            self.stream.seek(start)
            if self.stream.read(len(_WARC)) == _WARC:
                return start
            found = _scan(self.stream, start, re.compile(re.escape(_END + _WARC)), None)
        except BROKEN:
            return None  # the compression is broken from here on
        return None if found is None else found + len(_END)

    def first_fault(self, start: int) -> int | None:
        at = start
        try:
            while True:
                self.stream.seek(at)
                head = self.stream.read(_MAX_HEADER_BYTES)
                size = _stated_size(head) if head.startswith(_WARC) else None
                if not head:
                    return None
                if size is None:
                    return at
                self.stream.seek(at + size - 1)
                tail = self.stream.read(1 + len(_END + _WARC))[1:]
                if tail != _END + _WARC:
                    return None if tail == _END else at
                at += size + len(_END)
        except BROKEN:
            return at


def _scan(
    stream: Stream, start: int, pattern: re.Pattern[bytes], accept: Callable[[bytes], bool] | None
) -> int | None:
    """Return the first place from ``start`` on that matches and whose bytes are accepted."""
    stream.seek(start)
    at, window = start, b""
    while chunk := stream.read(_SCAN_BYTES):
        window += chunk
        for found in pattern.finditer(window):
            if accept is None or accept(window[found.start() : found.start() + _CHUNK_BYTES]):
                return at + found.start()
        kept = min(len(window), _CHUNK_BYTES)  # a place near the end may need what follows
        at += len(window) - kept
        window = window[-kept:]
    return None


def _inflates_to_record(data: bytes) -> bool:
    try:
        return zlib.decompressobj(31).decompress(data, len(_WARC)) == _WARC
    except zlib.error:
        return False


def _is_solid(begin: bytes) -> bool:
    """Return whether the first gzip member goes on with a second record after its first."""
    try:
        content = zlib.decompressobj(31).decompress(begin)
    except zlib.error:
        return False
    size = _stated_size(content)
    return size is not None and content[size:].lstrip(b"\r\n").startswith(_WARC)


def _stated_size(head: bytes) -> int | None:
    """Return the bytes of a record, from its first to the last of its block, as its header says."""
    end = head.find(_END)
    found = _LENGTH.search(head, 0, end + 2) if end >= 0 and head.startswith(_WARC) else None
    return end + len(_END) + int(found[1]) if found else None
