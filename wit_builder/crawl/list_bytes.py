"""The bytes of a list of pictures, unpacked, in pieces of one size.

Lists come plain or as ``.gz``, ``.bz2`` or ``.zst``, of one compressed stream or of several behind
each other. What can be unpacked of a damaged file is yielded before the damage is told.
"""

from __future__ import annotations

import bz2
import codecs
import zlib
from collections.abc import Iterator
from typing import IO

import pyarrow as pa

from wit_builder.ranges import open_ranges

CHUNK_BYTES = 4 << 20
"""Unpacked bytes of a piece: some ten thousand rows."""

_FED_BYTES = 16 << 10
"""What a decompressor is given at once, or asked for: no more than that is lost at a fault."""
_PIECE_BYTES = 1 << 20
PACKED = (".gz", ".bz2", ".zst")


class DamagedError(Exception):
    """A compressed file is cut short or damaged; the message says where."""


def chunks(place: str) -> Iterator[bytes]:
    """Yield a file's bytes, unpacked as its name ends, without a byte-order mark.

    All pieces but the last have ``CHUNK_BYTES``, however the bytes arrive.

    Raises:
        DamagedError: after what could be unpacked before the damage.
        StorageError: it is not there, or cannot be read just now.
    """
    held = bytearray()
    at_start = True
    damage = ""
    with open_ranges(place) as raw:
        pieces = _unpacked(place, raw)
        while True:
            try:
                piece = next(pieces, None)
            except (EOFError, OSError, zlib.error) as error:
                told = " ".join(str(error).split()) or "the file is cut short"
                piece, damage = None, f"{told}, before byte {raw.tell()}"
            if piece is None:
                break
            held += piece
            if at_start and len(held) >= len(codecs.BOM_UTF8):
                held, at_start = held.removeprefix(codecs.BOM_UTF8), False
            while len(held) >= CHUNK_BYTES:
                yield bytes(held[:CHUNK_BYTES])
                del held[:CHUNK_BYTES]
    yield bytes(held)
    if damage:
        raise DamagedError(damage)


def _unpacked(place: str, raw: IO[bytes]) -> Iterator[bytes]:
    if place.endswith(".gz"):
        return _gunzipped(raw)
    if place.endswith(".bz2"):
        return _bunzipped(raw)
    if place.endswith(".zst"):
        return _unzstd(raw)
    return iter(lambda: raw.read(CHUNK_BYTES), b"")


def _gunzipped(raw: IO[bytes]) -> Iterator[bytes]:
    left = b""
    while left or (left := raw.read(_FED_BYTES)):
        decoder = zlib.decompressobj(wbits=31)  # 16 + 15: gzip, of any window
        while not decoder.eof:
            if not left and not (left := raw.read(_FED_BYTES)):
                raise EOFError
            yield decoder.decompress(left, _PIECE_BYTES)
            left = decoder.unconsumed_tail
        left = decoder.unused_data.lstrip(b"\0")  # tapes padded members with zeros; gzip skips them


def _bunzipped(raw: IO[bytes]) -> Iterator[bytes]:
    left = b""
    while left or (left := raw.read(_FED_BYTES)):
        decoder = bz2.BZ2Decompressor()
        while not decoder.eof:
            if decoder.needs_input and not left and not (left := raw.read(_FED_BYTES)):
                raise EOFError
            yield decoder.decompress(left, _PIECE_BYTES)
            left = b""
        left = decoder.unused_data


def _unzstd(raw: IO[bytes]) -> Iterator[bytes]:
    file = _zstd_file(raw)
    read = 0
    try:
        while piece := file.read(_FED_BYTES):
            yield piece
            read += len(piece)
    except OSError:  # what was unpacked for this read is lost: once more, a byte at a time
        raw.seek(0)
        file = _zstd_file(raw)
        while read:
            read -= len(file.read(min(read, _FED_BYTES)))
        yield from iter(lambda: file.read(1), b"")


def _zstd_file(raw: IO[bytes]) -> pa.NativeFile:
    return pa.CompressedInputStream(pa.PythonFile(_Borrowed(raw), mode="r"), "zstd")


class _Borrowed:
    """A stream that Arrow may read, and not close: who opened it does."""

    closed = False

    def __init__(self, raw: IO[bytes]) -> None:
        self.read = raw.read

    def close(self) -> None:
        """Do nothing."""
