"""Strings out of JSON, by the column: escapes undone by a kernel."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder.crawl.blocks import BLOCK, address_of, byte_at, copy, first_bit, where

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_BACKSLASH = np.uint8(ord("\\"))
_U = np.uint8(ord("u"))
_LETTERS = np.zeros(256, np.uint8)
"""What a letter after a backslash stands for (RFC 8259, section 7); 0 for none."""
for _letter, _means in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _LETTERS[_letter] = _means


def strings(data: U8, spans: I64) -> pa.Array:
    """Return what JSON strings say, as a string array.

    A wrong escape, half of a surrogate pair, and bytes that are no UTF-8 become U+FFFD.

    Args:
        data: the JSON.
        spans: a row per string: where it begins and ends within its quotes.
    """
    sizes = spans[:, 1] - spans[:, 0]
    # a wrong escape may grow from two bytes to three
    out = np.empty(int(sizes.sum()) * 3 // 2 + 4, np.uint8)
    ends = _unescape(data, spans, out)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(out[: ends[-1]].tobytes())]
    found = pa.Array.from_buffers(pa.binary(), len(spans), buffers)
    try:
        return found.cast(pa.string())
    except pa.ArrowInvalid:  # not UTF-8: never from an extractor, so how long it takes is no matter
        replaced = (value.decode("utf-8", "replace") for value in found.to_pylist())
        return pa.array(replaced, pa.string())


@numba.njit(cache=True, nogil=True)
def _unescape(data: U8, spans: I64, out: U8) -> I32:
    """Write the strings one after the other; return where each ends (from 0)."""
    ends = np.zeros(spans.shape[0] + 1, np.int32)
    source, target = address_of(data), address_of(out)
    size = 0
    for i in range(spans.shape[0]):
        at, end = spans[i, 0], spans[i, 1]
        while at < end:
            plain = _plain(source, at, end, data.size)
            size += copy(source + at, target + size, plain)
            at += plain
            if at == end:
                break
            if at + 1 < end and _LETTERS[data[at + 1]] != 0:
                out[size] = _LETTERS[data[at + 1]]
                size += 1
                at += 2
            else:
                code, at = _code_point(data, at, end)
                size = _encode(code, out, size)
        ends[i + 1] = size
    return ends


@numba.njit(cache=True)
def _plain(address: int, at: int, end: int, size: int) -> int:
    """Return how many bytes come before the next backslash."""
    start = at
    while at + BLOCK <= size:
        found = first_bit(where(address + at, _BACKSLASH))
        at += found
        if found < BLOCK or at >= end:
            return min(at, end) - start
    while at < end and byte_at(address + at) != _BACKSLASH:
        at += 1
    return at - start


@numba.njit(cache=True)
def _code_point(data: U8, at: int, end: int) -> tuple[int, int]:
    r"""Return what ``\uXXXX``, or a pair of them, stands for, and where it ends."""
    first = _hex(data, at, end)
    if first < 0:
        return 0xFFFD, min(at + 2, end)
    if 0xD800 <= first < 0xDC00:
        second = _hex(data, at + 6, end)
        if 0xDC00 <= second < 0xE000:
            return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00), at + 12
    return (0xFFFD if 0xD800 <= first < 0xE000 else first), at + 6


@numba.njit(cache=True)
def _hex(data: U8, at: int, end: int) -> int:
    r"""Return the number of the ``\uXXXX`` that begins here; -1 if none does."""
    if at + 6 > end or data[at] != _BACKSLASH or data[at + 1] != _U:
        return -1
    value = 0
    for k in range(at + 2, at + 6):
        digit = data[k]
        if 48 <= digit <= 57:
            value = value * 16 + digit - 48
        elif 97 <= digit | 32 <= 102:
            value = value * 16 + (digit | 32) - 87
        else:
            return -1
    return value


@numba.njit(cache=True)
def _encode(code: int, out: U8, size: int) -> int:
    """Write a code point as UTF-8 (RFC 3629); return where the next goes."""
    if code < 0x80:
        out[size] = code
        return size + 1
    if code < 0x800:
        out[size] = 0xC0 | code >> 6
    elif code < 0x10000:
        out[size] = 0xE0 | code >> 12
        size += 1
        out[size] = 0x80 | code >> 6 & 63
    else:
        out[size] = 0xF0 | code >> 18
        out[size + 1] = 0x80 | code >> 12 & 63
        out[size + 2] = 0x80 | code >> 6 & 63
        size += 2
    out[size + 1] = 0x80 | code & 63
    return size + 2
