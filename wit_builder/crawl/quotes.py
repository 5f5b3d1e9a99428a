"""Where the strings of JSON begin and end, found a block of bytes at a time.

As simdjson does it (Langdale and Lemire, "Parsing Gigabytes of JSON per Second", 2019): bytes are
compared by the block, which gives a bit for each, and the places of the set bits are written
without a branch for each. Who walks through JSON with these places reads no byte within a string.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from wit_builder.crawl.blocks import BLOCK, address_of, byte_at, count_bits, first_bit, where

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

_AT_A_TIME = 8
_ONE, _LAST = np.uint64(1), np.uint64(BLOCK - 1)
_QUOTE, _BACKSLASH = (np.uint8(ord(c)) for c in '"\\')


def room(size: int) -> I64:
    """Return room for the places of all quotes in so many bytes of JSON, and for what is beyond."""
    return np.empty(size + 2 * BLOCK, np.int64)


@numba.njit(cache=True, nogil=True)
def index_quotes(data: U8, start: int, end: int, places: I64) -> None:
    """Write where the quotes stand that no backslash escapes, in order; behind them ``end``.

    It is written some times, so that one can look a few quotes ahead.

    Args:
        data: what holds the JSON.
        start: where it begins.
        end: where it ends.
        places: the ``room`` of this many bytes.
    """
    address = address_of(data)
    whole = (end - start) // BLOCK
    rest = np.zeros(BLOCK, np.uint8)  # the last block is copied: nothing is read beyond the data
    for k in range(start + whole * BLOCK, end):
        rest[k - start - whole * BLOCK] = data[k]
    count = 0
    escaping = np.uint64(0)  # whether a block ends with a backslash
    for number in range(whole + 1):
        at = start + number * BLOCK
        block = address + at if number < whole else address_of(rest)
        quotes, backslashes = where(block, _QUOTE), where(block, _BACKSLASH)
        if backslashes | escaping:
            quotes = _unescaped(quotes, address + at, address + start)
        escaping = backslashes >> _LAST
        last = count + count_bits(quotes)
        while count < last:
            for k in range(_AT_A_TIME):  # what is too much is written over
                places[np.uint64(count + k)] = at + first_bit(quotes)
                quotes &= quotes - _ONE
            count += _AT_A_TIME
        count = last
    places[count : count + _AT_A_TIME] = end


@numba.njit(cache=True)
def _unescaped(quotes: np.uint64, block: int, begin: int) -> np.uint64:
    """Return the quotes of a block that have an even number of backslashes before them."""
    found, left = quotes, quotes
    while left:
        quote = block + first_bit(left)
        before = quote
        while before > begin and byte_at(before - 1) == _BACKSLASH:
            before -= 1
        if (quote - before) & 1:
            found ^= left & (~left + _ONE)
        left &= left - _ONE
    return found
