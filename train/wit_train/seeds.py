"""Every random choice of the trainer: splitmix64 over a row of words.

``splitmix64(x)`` is the first output of Sebastiano Vigna's generator of that name in state ``x``
(public domain, https://prng.di.unimi.it/splitmix64.c). A row of words is hashed as
``h = 0; for word: h = splitmix64(h ^ word)``. The first word says what the choice is for, so that
no two purposes share their numbers. Nothing here depends on numpy's own generators, so that an
order never changes with a version.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_ALL_BITS = 0xFFFFFFFFFFFFFFFF


class Purpose(IntEnum):
    """What a choice is for: the first word of every row."""

    BLOCK_ORDER = 1
    WINDOW_ORDER = 2
    AUGMENT = 3
    STEP = 4
    DATA_SET = 5


def splitmix64(x: U64) -> U64:
    """Return the first output of splitmix64 for every state in an array."""
    z = x + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


def hashed(purpose: Purpose, *words: int | I64) -> U64:
    """Return the hash of the row ``(purpose, *words)``; arrays among the words broadcast.

    Args:
        purpose: what it is for.
        words: integers, taken modulo 2**64.

    Returns:
        uint64, of the words' common shape, at least one-dimensional.
    """
    h = splitmix64(np.asarray([purpose], np.uint64))
    for word in words:
        h = extended(h, word)
    return h


def extended(h: U64, word: int | I64) -> U64:
    """Return the hashes of rows with one more word each, given the hashes of the rows."""
    return splitmix64(h ^ _as_words(word))


def _as_words(word: int | I64) -> U64:
    if isinstance(word, np.ndarray):
        return word.astype(np.int64).view(np.uint64)
    return np.asarray([word & _ALL_BITS], np.uint64)


def hash_of(purpose: Purpose, *words: int) -> int:
    """Return ``hashed`` of one row, in Python's integers: 0.5 us a word, where numpy takes 5."""
    h = _splitmix64(purpose)
    for word in words:
        h = _splitmix64(h ^ (word & _ALL_BITS))
    return h


def fraction(row: int, index: int) -> float:
    """Return a number in [0, 1): the upper 53 bits of the hash of ``(*row, index)``.

    Args:
        row: the hash of the row, of ``hash_of``.
        index: a further word.
    """
    return (_splitmix64(row ^ index) >> 11) * 2.0**-53


def _splitmix64(x: int) -> int:
    z = (x + 0x9E3779B97F4A7C15) & _ALL_BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _ALL_BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _ALL_BITS
    return z ^ (z >> 31)
