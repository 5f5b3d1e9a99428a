"""The uids of pairs, by the column: ``hashing.pair_uid`` of each, from a kernel over Arrow buffers.

Nearly all pairs have a URL and a text of 9 to 232 bytes together. For these the kernel does XXH3 of
128 bits as its specification has it for inputs of 17 to 128 and of 129 to 240 bytes (``XXH3``, Yann
Collet, ``xxhash_spec.md``), seed 0. What is shorter or longer goes through the ``xxhash`` package.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from wit_builder.crawl.blocks import address_of, copy, eight_at, multiply_fold
from wit_builder.hashing import U64, binary_buffers

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

_SHORTEST, _MIDDLE, _LONGEST = 17, 128, 240
"""Bytes of the inputs that the kernel takes, and up to how many it mixes from both ends."""

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_AVALANCHE = np.uint64(0x165667919E3779F9)

_SECRET: U8 = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
        "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
        "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
        "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
        "eac5ac8334d3ebc3"
    ),
    np.uint8,
)
"""The first 136 bytes of XXH3's default secret; inputs of these sizes use no more."""


def pair_uids(urls: pa.Array, texts: pa.Array) -> pa.Array:
    """Return ``pair_uid`` of every row of two string arrays of one length, as ``binary(16)``."""
    url, url_offsets = binary_buffers(urls)
    text, text_offsets = binary_buffers(texts)
    sizes = np.diff(url_offsets) + np.diff(text_offsets) + 8
    starts = np.cumsum(sizes) - sizes
    prefixed = np.empty(int(sizes.sum()), np.uint8)
    uids = np.empty((len(sizes), 2), np.uint64)
    _hash_pairs((url, url_offsets), (text, text_offsets), _SECRET, prefixed, uids)
    uids.byteswap(inplace=True)
    for row in np.flatnonzero((sizes < _SHORTEST) | (sizes > _LONGEST)).tolist():
        pair = prefixed[starts[row] : starts[row] + sizes[row]].tobytes()
        uids[row] = np.frombuffer(xxhash.xxh3_128_digest(pair), np.uint64)
    return pa.Array.from_buffers(pa.binary(16), len(urls), [None, pa.py_buffer(uids)])


@numba.njit(cache=True, nogil=True)
def _hash_pairs(
    urls: tuple[U8, I64], texts: tuple[U8, I64], secret: U8, prefixed: U8, uids: U64
) -> None:
    """Write each row's length-prefixed URL and text behind the one before, and hash it."""
    (url, url_offsets), (text, text_offsets) = urls, texts
    url_at, text_at = address_of(url), address_of(text)
    key, begin = address_of(secret), address_of(prefixed)
    lengths = np.empty(2, np.uint32)
    length_at = address_of(lengths)
    end = begin
    for row in range(uids.shape[0]):
        begin = end
        lengths[0] = url_offsets[row + 1] - url_offsets[row]
        lengths[1] = text_offsets[row + 1] - text_offsets[row]
        end += copy(length_at, end, 4)
        end += copy(url_at + url_offsets[row], end, lengths[0])
        end += copy(length_at + 4, end, 4)
        end += copy(text_at + text_offsets[row], end, lengths[1])
        if _SHORTEST <= end - begin <= _LONGEST:
            low, high = _xxh3(begin, end, key)
            uids[row, 0], uids[row, 1] = high, low


@numba.njit(cache=True)
def _xxh3(begin: int, end: int, secret: int) -> tuple[np.uint64, np.uint64]:
    """Return the low and high half of XXH3-128 of the bytes between two addresses."""
    size = np.uint64(end - begin)
    low, high = size * _P1, np.uint64(0)
    if end - begin <= _MIDDLE:
        for k in range((end - begin - 1) // 32, -1, -1):
            low, high = _mix(low, high, begin + 16 * k, end - 16 * k - 16, secret + 32 * k)
    else:
        for k in range(4):
            low, high = _mix(low, high, begin + 32 * k, begin + 32 * k + 16, secret + 32 * k)
        low, high = _avalanche(low), _avalanche(high)
        for k in range(4, (end - begin) // 32):
            at = begin + 32 * k
            low, high = _mix(low, high, at, at + 16, secret + 3 + 32 * (k - 4))
        low, high = _mix(low, high, end - 16, end - 32, secret + 103)
    total = low * _P1 + high * _P4 + size * _P2
    return _avalanche(low + high), np.uint64(0) - _avalanche(total)


@numba.njit(cache=True, inline="always")
def _mix(
    low: np.uint64, high: np.uint64, first: int, second: int, secret: int
) -> tuple[np.uint64, np.uint64]:
    """Return the two sums with 16 bytes at one address and 16 at another mixed in."""
    a, b = eight_at(first), eight_at(first + 8)
    c, d = eight_at(second), eight_at(second + 8)
    low += multiply_fold(a ^ eight_at(secret), b ^ eight_at(secret + 8))
    high += multiply_fold(c ^ eight_at(secret + 16), d ^ eight_at(secret + 24))
    return low ^ (c + d), high ^ (a + b)


@numba.njit(cache=True, inline="always")
def _avalanche(value: np.uint64) -> np.uint64:
    value = (value ^ (value >> np.uint64(37))) * _AVALANCHE
    return value ^ (value >> np.uint64(32))
