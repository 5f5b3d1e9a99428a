"""Hashes that differ in few bits: every one compared with every one, which is exact and quick.

Legend: N hashes that are searched, Q hashes that ask, M pairs that were found.

The kernel takes a tile of hashes that stays in the first cache through all questions. Its inner
loop has no branch, so LLVM makes vector instructions of it: with AVX-512's VPOPCNTQ 7e9
comparisons a second and core, measured; decision 0053 has the figure without.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from numba.extending import intrinsic

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_TILE = 2048  # hashes: 16 KiB
_ROOM = 1 << 14  # pairs at first


class Near(NamedTuple):
    """Pairs that were found: position of who asked, position among the hashes, bits that differ."""

    query_M: I64
    hash_M: I64
    bits_M: npt.NDArray[np.uint8]


def near(hash_N: U64, query_Q: U64, sure_Q: U64, most_Q: npt.NDArray[np.uint8], keep: int) -> Near:
    """Return the pairs that are near. Lets other threads work meanwhile.

    Args:
        hash_N: what is searched.
        query_Q: what asks.
        sure_Q: which bits are compared.
        most_Q: how many of them may differ.
        keep: pairs of one that asks, at most, where there are many in all: the nearest, and of
            equally near ones the first.
    """
    found_M2 = np.empty((_ROOM, 2), np.int64)
    limit_Q, quota_Q = most_Q.astype(np.uint64), np.full(len(query_Q), np.iinfo(np.int64).max)
    count = _near(hash_N, query_Q, sure_Q, limit_Q, quota_Q, found_M2)
    if count > len(found_M2):
        limit_Q, quota_Q, room = _limits(hash_N, query_Q, sure_Q, most_Q, keep)
        found_M2 = np.empty((room, 2), np.int64)
        count = _near(hash_N, query_Q, sure_Q, limit_Q, quota_Q, found_M2)
        assert count == room
    query_M, hash_M = found_M2[:count].T
    differ_M = (hash_N[hash_M] ^ query_Q[query_M]) & sure_Q[query_M]
    bits_M = np.unpackbits(differ_M.view(np.uint8).reshape(-1, 8), axis=1).sum(1, dtype=np.uint8)
    return Near(query_M, hash_M, bits_M)


def _limits(
    hash_N: U64, query_Q: U64, sure_Q: U64, most_Q: npt.NDArray[np.uint8], keep: int
) -> tuple[U64, I64, int]:
    """Return up to how many bits to keep pairs of each, how many of so many bits, how many in all.

    Memory: 1 KiB for each that asks.
    """
    count_QB = np.zeros((len(query_Q), 65), np.int64)
    _count(hash_N, query_Q, sure_Q, most_Q.astype(np.uint64), count_QB)
    upto_QB = count_QB.cumsum(1)
    limit_Q = np.minimum((upto_QB < keep).sum(1), most_Q)
    row_Q = np.arange(len(query_Q))
    kept_Q = np.minimum(upto_QB[row_Q, limit_Q], keep)
    quota_Q = kept_Q - (upto_QB - count_QB)[row_Q, limit_Q]
    return limit_Q.astype(np.uint64), quota_Q, int(kept_Q.sum())


def allowed(sure_Q: U64, distance: int) -> npt.NDArray[np.uint8]:
    """Return how many of so many sure bits may differ, as rarely by chance as in 64 bits.

    Of 64 bits ``distance`` may; of fewer as many as random hashes have no more often, or none.
    """
    from scipy.stats import binom  # noqa: PLC0415 - takes half a second

    rare = float(binom.cdf(distance, 64, 0.5))
    table = [
        max(0, int(np.count_nonzero(binom.cdf(np.arange(bits + 1), bits, 0.5) <= rare)) - 1)
        for bits in range(65)
    ]
    table[64] = distance
    ones_Q = np.unpackbits(sure_Q.view(np.uint8).reshape(-1, 8), axis=1).sum(1)
    return np.array(table, np.uint8)[ones_Q]


def _population(context: Any, word: Any) -> Any:
    """Return how many bits of a uint64 are set, by LLVM's own instruction."""
    del context

    def generated(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        del target, signature
        return builder.ctpop(values[0])

    return numba.uint64(word), generated


_ones: Any = intrinsic(_population)


@numba.njit(cache=True, nogil=True)
def _near(hash_N: U64, query_Q: U64, sure_Q: U64, limit_Q: U64, quota_Q: I64, found_M2: I64) -> int:
    """Fill in pairs as far as there is room; return how many there are.

    Of pairs that differ in just ``limit_Q`` bits each that asks gets the first ``quota_Q``, which
    is counted down.
    """
    count = 0
    for start in range(0, hash_N.size, _TILE):
        tile = hash_N[start : start + _TILE]
        for q in range(query_Q.size):
            query, sure, limit, close = query_Q[q], sure_Q[q], limit_Q[q], np.int64(0)
            for i in range(tile.size):
                close += _ones((tile[i] ^ query) & sure) <= limit
            if not close:
                continue
            for i in range(tile.size):
                bits = _ones((tile[i] ^ query) & sure)
                if bits > limit:
                    continue
                if bits == limit:
                    if quota_Q[q] == 0:
                        continue
                    quota_Q[q] -= 1
                if count < len(found_M2):
                    found_M2[count, 0], found_M2[count, 1] = q, start + i
                count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _count(hash_N: U64, query_Q: U64, sure_Q: U64, most_Q: U64, count_QB: I64) -> None:
    """Count the pairs of each that asks, by the bits that differ."""
    for start in range(0, hash_N.size, _TILE):
        tile = hash_N[start : start + _TILE]
        for q in range(query_Q.size):
            query, sure, most, close = query_Q[q], sure_Q[q], most_Q[q], np.int64(0)
            for i in range(tile.size):
                close += _ones((tile[i] ^ query) & sure) <= most
            if not close:
                continue
            for i in range(tile.size):
                bits = _ones((tile[i] ^ query) & sure)
                if bits <= most:
                    count_QB[q, bits] += 1
