"""The form in which MediaWiki keeps a title, from the forms in which requests and links spell it.

The rules are MediaWiki's own (https://www.mediawiki.org/wiki/Manual:Page_title and
https://www.mediawiki.org/wiki/Manual:$wgLegalTitleChars):

* ``%XX`` stands for the byte; no title has such an escape.
* What follows ``#`` is a section, and is cut. So is one leading ``:``, which says "article".
* A run of underscores and spaces is one space, and none is at either end.
* The first letter is upper case, where that is one letter too ("ß" stays). Georgian letters stay,
  as on Wikimedia's sites.
* ``< > [ ] { } |`` and control characters are in no title, and no title has over 255 bytes. ``-``
  is no page either, but what page view files have for requests without a title.

Left out: Unicode's normal form C and its rarer spaces, which links spell as MediaWiki does, and the
dotted capital of Turkish.
"""

from __future__ import annotations

import functools
from typing import Final

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder.hashing import binary_buffers

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]

NO_PAGE: Final = -1
"""What ``write`` returns for what can be no page's title."""

SLACK: Final = 3
"""Bytes by which a title may outgrow what it is written from: its first letter changes."""

_MAX_BYTES: Final = 255
_SPACE, _HASH, _PERCENT = np.uint8(ord(" ")), np.uint8(ord("#")), np.uint8(ord("%"))
_DASH, _COLON, _UNDERSCORE = np.uint8(ord("-")), np.uint8(ord(":")), np.uint8(ord("_"))
_NOT_HEX = 16


def _hex_digits() -> U8:
    table = np.full(256, _NOT_HEX, np.uint8)
    for value in range(16):
        table[[ord(f"{value:x}"), ord(f"{value:X}")]] = value
    return table


def _bytes_of(text: bytes) -> npt.NDArray[np.bool_]:
    table = np.zeros(256, np.bool_)
    table[list(text)] = True
    return table


_HEX = _hex_digits()
_ILLEGAL = _bytes_of(bytes(range(32)) + b"\x7f<>[]{}|")
_SPECIAL = _ILLEGAL | _bytes_of(b"%#:")
_GEORGIAN = slice(0x10D0, 0x1100)


@functools.cache
def upper_case() -> U32:
    """Return the upper-case letter of every code point of the first two planes."""
    table = np.arange(0x20000, dtype=np.uint32)
    for code in range(len(table)):  # once a process, 20 ms
        upper = chr(code).upper()
        if len(upper) == 1:
            table[code] = ord(upper)
    table[_GEORGIAN] = np.arange(_GEORGIAN.start, _GEORGIAN.stop)
    return table


def forms(titles: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return the title that each value names; null where no page can have it.

    Args:
        titles: string column; null stays null.
    """
    column = titles.combine_chunks() if isinstance(titles, pa.ChunkedArray) else titles
    data, offsets = binary_buffers(column.fill_null(""))
    out = np.empty(int(offsets[-1] - offsets[0]) + SLACK * len(column), np.uint8)
    ends = np.zeros(len(column) + 1, np.int64)
    named = np.zeros(len(column), np.bool_)
    _write_all(data, offsets, upper_case(), out, ends, named)
    return strings(out, ends, named)


def strings(data: U8, ends: I64, valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Return a string array over a copy of its bytes.

    Args:
        data: valid UTF-8, at least to the last end, which is below 2 GiB.
        ends: 0, then where each value ends.
        valid: which values are not null; by default all.
    """
    bits = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffers = [bits, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(data[: ends[-1]].copy())]
    return pa.Array.from_buffers(pa.string(), len(ends) - 1, buffers)


@numba.njit(cache=True, nogil=True)
def _write_all(
    data: U8, offsets: I64, upper: U32, out: U8, ends: I64, named: npt.NDArray[np.bool_]
) -> None:
    for i in range(named.size):
        end = write(data, (offsets[i], offsets[i + 1]), upper, out, ends[i])
        named[i] = end != NO_PAGE
        ends[i + 1] = end if named[i] else ends[i]


@numba.njit(cache=True, nogil=True, inline="always")
def write(data: U8, span: tuple[int, int], upper: U32, out: U8, begin: int) -> int:
    """Write the title that ``data[span]`` names to ``out[begin:]``; return its end, or ``NO_PAGE``.

    Args:
        data: holds the spelling, valid UTF-8 but for what its escapes stand for.
        span: where it begins and ends.
        upper: ``upper_case()``.
        out: has room for the spelling and ``SLACK``.
        begin: where to write.
    """
    at, end = span
    to = begin
    colon = escaped = False
    after_space = True
    while at < end:
        byte = data[at]
        at += 1
        if _SPECIAL[byte]:
            if byte == _PERCENT and at + 2 <= end:
                high, low = _HEX[data[at]], _HEX[data[at + 1]]
                if high < _NOT_HEX and low < _NOT_HEX:
                    byte = np.uint8(high * 16 + low)
                    at += 2
                    escaped = True
            if byte == _HASH:
                break
            if _ILLEGAL[byte]:
                return NO_PAGE
            if byte == _COLON and to == begin and not colon:
                colon = True
                continue
        space = (byte == _SPACE) | (byte == _UNDERSCORE)
        out[to] = _SPACE if space else byte
        to += 1 - int(space & after_space)  # a branch here would often be guessed wrong
        after_space = space
    to -= int(to > begin and after_space)
    if to == begin or to - begin > _MAX_BYTES or (to == begin + 1 and out[begin] == _DASH):
        return NO_PAGE
    if escaped and not is_utf8(out, begin, to):
        return NO_PAGE
    if out[begin] >= 0x80:
        return _capitalise(out, begin, to, upper)
    if ord("a") <= out[begin] <= ord("z"):
        out[begin] -= np.uint8(32)
    return to


@numba.njit(cache=True, nogil=True)
def is_utf8(data: U8, start: int, end: int) -> bool:
    """Return whether bytes are well-formed UTF-8 (The Unicode Standard, table 3-7)."""
    every = np.uint8(0)
    for i in range(start, end):
        every |= data[i]
    if every < 0x80:
        return True
    at = start
    while at < end:
        lead = data[at]
        at += 1
        if lead < 0x80:
            continue
        if lead < 0xC2 or lead > 0xF4:
            return False
        more = 1 + int(lead >= 0xE0) + int(lead >= 0xF0)
        if at + more > end:
            return False
        low = 0xA0 if lead == 0xE0 else 0x90 if lead == 0xF0 else 0x80
        high = 0x9F if lead == 0xED else 0x8F if lead == 0xF4 else 0xBF
        if data[at] < low or data[at] > high:
            return False
        for i in range(at + 1, at + more):
            if data[i] & 0xC0 != 0x80:
                return False
        at += more
    return True


@numba.njit(cache=True, nogil=True)
def _capitalise(out: U8, begin: int, end: int, upper: U32) -> int:
    """Put the upper case of a first letter beyond ASCII in its place; return the new end."""
    lead = np.int64(out[begin])
    size = 2 + int(lead >= 0xE0) + int(lead >= 0xF0)
    code = lead & (0x7F >> size)
    for i in range(begin + 1, begin + size):
        code = code << 6 | (out[i] & 0x3F)
    if code >= upper.size or upper[code] == code:
        return end
    letter = np.int64(upper[code])
    need = 1 + int(letter >= 0x80) + int(letter >= 0x800) + int(letter >= 0x10000)
    _shift(out, begin + size, end, need - size)
    for i in range(begin + need - 1, begin, -1):
        out[i] = 0x80 | (letter & 0x3F)
        letter >>= 6
    out[begin] = letter if need == 1 else (0xF00 >> need & 0xFF) | letter
    return end + need - size


@numba.njit(cache=True, nogil=True)
def _shift(out: U8, start: int, end: int, by: int) -> None:
    if by < 0:
        for i in range(start, end):
            out[i + by] = out[i]
    elif by > 0:
        for i in range(end - 1, start - 1, -1):
            out[i + by] = out[i]
