"""Ranks of (pair, query) matches: XXH64 of the uid, seeded by the query, over whole columns."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from wit_builder.hashing import U64

I32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)


@numba.njit(cache=True, inline="always")
def _rotate(value: np.uint64, bits: int) -> np.uint64:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@numba.njit(cache=True, inline="always")
def _mixed(word: np.uint64) -> np.uint64:
    """Return what XXH64 makes of a word before the seed comes in: once a pair, not once a match."""
    return _rotate(word * _P2, 31) * _P1


@numba.njit(cache=True, inline="always")
def _rank(seed: np.uint64, first: np.uint64, second: np.uint64) -> np.uint64:
    """Return XXH64 of the sixteen bytes whose words were mixed (public specification)."""
    value = _rotate((seed + _P5 + np.uint64(16)) ^ first, 27) * _P1 + _P4
    value = _rotate(value ^ second, 27) * _P1 + _P4
    value = (value ^ (value >> np.uint64(33))) * _P2
    value = (value ^ (value >> np.uint64(29))) * _P3
    return value ^ (value >> np.uint64(32))


BLOCK = 2048
"""Matches that are ranked at a time: what is noted of them stays in the nearest cache."""

RUN = 8
"""Most pairs have no more queries: so many are noted at once, without a branch."""


@numba.njit(cache=True, nogil=True)
def rank_all(
    pairs: tuple[U64, I32, I32],
    use: Mask,
    asked: tuple[U64, I32],
    found: tuple[I32, I32, I32, U64],
    mask: Mask,
) -> int:
    """Rank all matches, and return how many were found.

    Args:
        pairs: ``pairs.Pairs``.
        use: bool [P], which pairs.
        asked: uint64 [L + 1, 2], of every row its query's seed and the highest rank that is low
            enough; the last is of all queries that are not asked for. And int32 [Q], their rows.
        found: filled with the matches of queries that are asked for whose ranks are low enough;
            arrays of ``balance.Ranked``, [M].
        mask: filled, bool [M]: those matches, and those of all queries not asked for.
    """
    # Where a pair ends, and whether a match stays, cannot be foretold: branches on it took half of
    # the time. Short loops without any are vectorised.
    (uids, offsets, queries), (keys, rows) = pairs, asked
    ats, owners, slots, ranks = found
    first, second = np.empty(BLOCK + RUN, np.uint64), np.empty(BLOCK + RUN, np.uint64)
    owner, used = np.empty(BLOCK + RUN, np.int32), np.empty(BLOCK + RUN, np.bool_)
    row, stays = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32)
    seed, highest = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64)
    none, pair = len(keys) - 1, 0
    count = np.uintp(0)  # unsigned indices: others could be negative, and would be looked at
    for start in range(0, queries.size, BLOCK):
        size = min(BLOCK, queries.size - start)
        pair = _note_pairs(uids, offsets, use, pair, start, (owner, used, first, second))
        for k in range(size):
            row[k] = rows[np.uint32(queries[start + k])]
            seed[k], highest[k] = keys[np.uint32(row[k]), 0], keys[np.uint32(row[k]), 1]
        for k in range(size):
            seed[k] = _rank(seed[k], first[k], second[k])
        for k in range(size):
            mask[start + k] = (seed[k] <= highest[k]) & used[k]
        few = np.uintp(0)
        for k in range(size):
            stays[few] = k
            few += np.uintp(mask[start + k] & (row[k] != none))
        for i in range(few):
            one, to = np.uintp(stays[i]), count + np.uintp(i)
            ats[to], owners[to] = start + stays[i], owner[one]
            slots[to], ranks[to] = row[one], seed[one]
        count += few
    return int(count)


@numba.njit(cache=True, inline="always")
def _note_pairs(
    uids: U64, offsets: I32, use: Mask, pair: int, start: int, notes: tuple[I32, Mask, U64, U64]
) -> int:
    """Write the pair of each match of a block, and its mixed words; return the last pair."""
    owner, used, first, second = notes
    while pair < len(uids) and offsets[pair] < start + BLOCK:
        one, two = _mixed(uids[pair, 0]), _mixed(uids[pair, 1])
        at = max(offsets[pair] - start, 0)
        few = np.uintp(at)
        for k in range(RUN):
            owner[few + np.uintp(k)] = pair
        for k in range(RUN):
            used[few + np.uintp(k)] = use[pair]
        for k in range(RUN):
            first[few + np.uintp(k)] = one
        for k in range(RUN):
            second[few + np.uintp(k)] = two
        for k in range(at + RUN, min(offsets[pair + 1] - start, BLOCK)):
            owner[k], used[k], first[k], second[k] = pair, use[pair], one, two
        pair += 1
    return pair - (pair > 0 and offsets[pair] > start + BLOCK)
