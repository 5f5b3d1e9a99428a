"""The one 64-bit hash of the project, over whole columns.

Places, ranks and buckets are all ``xxh64`` (Yann Collet's XXH64, public specification). The kernels
here run over Arrow buffers; the ``xxhash`` package gives the same numbers for a single value, so
anybody can check a draw with three lines of Python. A hash *keyed* by a label and the run's seed
uses ``xxh64(label, seed)`` as the seed of the second hash.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

U64 = npt.NDArray[np.uint64]

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)


def label_seed(seed: int, label: str) -> int:
    """Return ``xxh64(label, seed)``: the seed of a purpose (``"dedup"``, ``"pack"``) or a query."""
    return xxhash.xxh64_intdigest(label.encode(), seed & 0xFFFFFFFFFFFFFFFF)


def hash_column(values: pa.Array | pa.ChunkedArray, seed: int = 0) -> U64:
    """Return ``xxh64`` of every value of a string, binary or fixed-size binary column.

    Args:
        values: the column; nulls are refused (an assertion: no such column of ours has any).
        seed: the seed of the hash, taken modulo 2**64.

    Returns:
        uint64 array of the column's length, in its order.
    """
    column = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    assert column.null_count == 0
    data, offsets = binary_buffers(column)
    out = np.empty(len(column), np.uint64)
    _hash_slices(data, offsets, np.uint64(seed & 0xFFFFFFFFFFFFFFFF), out)
    return out


def binary_buffers(column: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the bytes of a string or binary array and the ``len + 1`` offsets of its values."""
    kind = column.type
    if pa.types.is_fixed_size_binary(kind):
        width = kind.byte_width
        data = _bytes_of(column.buffers()[1])
        first = column.offset * width
        return data, np.arange(first, first + (len(column) + 1) * width, width, dtype=np.int64)
    wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    assert wide or pa.types.is_string(kind) or pa.types.is_binary(kind), kind
    _, offsets, data = column.buffers()
    if len(column) == 0 or offsets is None:
        return _bytes_of(data), np.zeros(1, np.int64)
    dtype = np.int64 if wide else np.int32
    view = np.frombuffer(offsets, dtype, count=len(column) + 1 + column.offset)
    return _bytes_of(data), view[column.offset :].astype(np.int64)


def _bytes_of(buffer: Any) -> npt.NDArray[np.uint8]:
    return np.empty(0, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)


@numba.njit(cache=True, inline="always")
def _rotate(value: np.uint64, bits: int) -> np.uint64:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@numba.njit(cache=True, inline="always")
def _round(lane: np.uint64, word: np.uint64) -> np.uint64:
    return _rotate(lane + word * _P2, 31) * _P1


@numba.njit(cache=True, inline="always")
def _word(data: npt.NDArray[np.uint8], at: int, width: int) -> np.uint64:
    value = np.uint64(0)
    for i in range(width):
        value |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return value


@numba.njit(cache=True)
def xxh64_slice(data: npt.NDArray[np.uint8], start: int, end: int, seed: np.uint64) -> np.uint64:
    """Return XXH64 of ``data[start:end]`` (public specification, ``xxhash_spec.md``)."""
    at = start
    if end - start >= 32:
        a, b, c, d = seed + _P1 + _P2, seed + _P2, seed, seed - _P1
        while at + 32 <= end:
            a = _round(a, _word(data, at, 8))
            b = _round(b, _word(data, at + 8, 8))
            c = _round(c, _word(data, at + 16, 8))
            d = _round(d, _word(data, at + 24, 8))
            at += 32
        acc = _rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)
        for lane in (a, b, c, d):
            acc = (acc ^ _round(np.uint64(0), lane)) * _P1 + _P4
    else:
        acc = seed + _P5
    acc += np.uint64(end - start)
    while at + 8 <= end:
        acc = _rotate(acc ^ _round(np.uint64(0), _word(data, at, 8)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        acc = _rotate(acc ^ (_word(data, at, 4) * _P1), 23) * _P2 + _P3
        at += 4
    while at < end:
        acc = _rotate(acc ^ (np.uint64(data[at]) * _P5), 11) * _P1
        at += 1
    acc = (acc ^ (acc >> np.uint64(33))) * _P2
    acc = (acc ^ (acc >> np.uint64(29))) * _P3
    return acc ^ (acc >> np.uint64(32))


@numba.njit(cache=True)
def _hash_slices(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], seed: np.uint64, out: U64
) -> None:
    for i in range(out.size):
        out[i] = xxh64_slice(data, offsets[i], offsets[i + 1], seed)


def pair_uid(url: str, text: str) -> bytes:
    """Return the 16 bytes that name a pair: XXH3-128 (big-endian) over the length-prefixed two.

    Args:
        url: the image's URL, normalised.
        text: the text, white space collapsed.

    Each is its UTF-8 length as four bytes, little-endian, then its UTF-8 bytes: no other pair has
    the same input.
    """
    a, b = url.encode(), text.encode()
    prefixed = b"".join((len(a).to_bytes(4, "little"), a, len(b).to_bytes(4, "little"), b))
    return xxhash.xxh3_128_digest(prefixed)
