"""Up to ``cap`` pairs per query, exactly, by seeded ranks.

Every (pair, query) has a *rank*: ``xxh64(uid, seed=xxh64(query, seed))``; ties go by uid. A query's
*draw* is its ``cap`` lowest-ranked pairs that are not dead. This is CLIP's "up to 20,000 (image,
text) pairs per query" (arXiv 2103.00020, section 2.2). Since ranks depend on nothing but seed,
query and pair, the draw does not depend on order, number of units, or workers.

A draw is told by its *bounds*: the first (rank, uid) of each query that is not drawn. A query
without a bound draws all that contain it. Bounds are found without sorting, and without holding the
matches: ranks are counted in 64 equal steps of a range, then those of the one step in which the
bound must be are collected and sorted. Ranks are uniform, so that the range is known beforehand:
four times ``cap / matches`` of all ranks. Where it is not there, the search goes on beyond.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder.curate.pairs import Pairs
from wit_builder.curate.ranks import rank_all
from wit_builder.hashing import U64, hash_column

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

UNKNOWN, ALIVE, DEAD = 0, 1, 2
"""States of a pair: not asked for or not answered yet, has a picture, can have none."""

STEPS = 64
BELOW, ABOVE = 0, STEPS + 1
"""Columns of the counts by step, of which there are ``STEPS + 2``: before the first, and beyond."""

_BITS = 64
_STEP_BITS = STEPS.bit_length() - 1
_SPREAD = 4
"""The first range is so many times as wide as what the cap takes up: a quarter may be alive."""

_FEW = 4096
"""Matches of a query that are collected in any case, whatever its cap."""


class Bounds(NamedTuple):
    """What a draw takes of each query.

    Attributes:
        slot: int32 [Q], a query's row in the others; -1 where all is drawn.
        rank: uint64 [L], with ``high`` and ``low`` the first (rank, uid) that is not drawn.
        high: uint64 [L], first eight bytes of that uid, big-endian.
        low: uint64 [L], its last eight bytes.
        ask: uint64 [L]: ranks below are asked for, too; 0 for none beyond the draw.
    """

    slot: I32
    rank: U64
    high: U64
    low: U64
    ask: U64


class Ranked(NamedTuple):
    """Matches with some of the queries, in the order of their pairs; all arrays are [R].

    Attributes:
        at: int32, where the match stands in ``Pairs.queries``.
        pair: int32, row of the pair.
        slot: int32, row of the query among those looked at.
        rank: uint64, its rank.
    """

    at: I32
    pair: I32
    slot: I32
    rank: U64


class Search(NamedTuple):
    """Where the bounds of some queries are looked for; both are [L].

    Attributes:
        start: uint64, where the first step of ranks begins.
        shift: int64: a step has ``2**shift`` ranks.
    """

    start: U64
    shift: I64


class Collected(NamedTuple):
    """Matches in the first step of a search; all arrays have one entry per match."""

    slot: I32
    rank: U64
    high: U64
    low: U64
    unknown: Mask


def query_seeds(queries: pa.Array | pa.ChunkedArray, seed: int) -> U64:
    """Return ``xxh64(query, seed)`` for every query: the seeds of the ranks."""
    return hash_column(queries, seed)


@numba.njit(cache=True, inline="always")
def _big_endian(word: np.uint64) -> np.uint64:
    value = np.uint64(0)
    for k in range(8):
        value = (value << np.uint64(8)) | ((word >> np.uint64(8 * k)) & np.uint64(255))
    return value


def tally(queries: I32, counts: I64) -> None:
    """Add to ``counts``, int64 [Q], how often each query stands in a flat list of ids."""
    _tally(queries, counts)


@numba.njit(cache=True, nogil=True)
def _tally(queries: I32, counts: I64) -> None:
    for query in queries:
        counts[query] += 1


def ranked(
    pairs: Pairs, use: Mask | None, seeds: U64, slot: I32, highest: U64 | None = None
) -> Ranked:
    """Return the matches of some pairs with some queries, with their ranks.

    Args:
        pairs: the pairs.
        use: bool [P], which pairs; None for all.
        seeds: uint64 [Q], ``query_seeds``.
        slot: int32 [Q], the rows of the queries; -1 for those not to look at.
        highest: uint64 [L], by row, the ranks above which matches are left out; None for all.
    """
    return _ranked(pairs, use, seeds, slot, highest)[0]


def _ranked(
    pairs: Pairs, use: Mask | None, seeds: U64, slot: I32, highest: U64 | None
) -> tuple[Ranked, Mask]:
    """Return ``ranked``; and bool [M], those and the matches with queries not to look at."""
    chosen = np.flatnonzero(slot >= 0)
    keys: U64 = np.full((len(chosen) + 1, 2), np.uint64(2**64 - 1))
    keys[slot[chosen], 0] = seeds[chosen]
    if highest is not None:
        keys[:-1, 1] = highest
    row = np.where(slot < 0, len(chosen), slot).astype(np.int32)
    size = pairs.queries.size
    # what is not written to takes no memory
    at, owner, of = np.empty((3, size), np.int32)
    rank, mask = np.empty(size, np.uint64), np.empty(size, np.bool_)
    use = np.ones(len(pairs), np.bool_) if use is None else use
    count = rank_all(pairs, use, (keys, row), (at, owner, of, rank), mask)
    return Ranked(at[:count], owner[:count], of[:count], rank[:count]), mask


def count_ranks(matches: Ranked, search: Search, counts: I64, pairs: Mask | None = None) -> None:
    """Add the numbers of matches by step of rank to ``counts``, int64 [L, STEPS + 2].

    Args:
        matches: what to count.
        search: the steps of each query.
        counts: added to.
        pairs: bool [P], count only matches of these; None for all.
    """
    _count_ranks(matches, search, counts, pairs)


@numba.njit(cache=True, nogil=True)
def _count_ranks(matches: Ranked, search: Search, counts: I64, pairs: Mask | None) -> None:
    _, owners, slots, ranks = matches
    starts, shifts = search
    for i in range(slots.size):
        slot, rank = slots[i], ranks[i]
        past = (rank - starts[slot]) >> np.uint64(shifts[slot])
        step = np.int64(min(past, np.uint64(STEPS))) + 1
        one = np.int64(1) if pairs is None else np.int64(pairs[owners[i]])
        counts[slot, step if rank >= starts[slot] else BELOW] += one


def collect(matches: Ranked, search: Search, pairs: Pairs, unknown: Mask) -> Collected:
    """Return the matches whose rank is in the first step of their query.

    Args:
        matches: what to choose from.
        search: the step of each query.
        pairs: the pairs.
        unknown: bool [P], whose state is unknown.
    """
    inside = np.empty(matches.at.size, np.int32)
    inside = inside[: _collect(matches.slot, matches.rank, search, inside)]
    pair = matches.pair[inside]
    halves = pairs.words[pair].byteswap()
    ends = matches.rank[inside], halves[:, 0], halves[:, 1]
    return Collected(matches.slot[inside], *ends, unknown=unknown[pair])


@numba.njit(cache=True, nogil=True)
def _collect(slots: I32, ranks: U64, search: Search, inside: I32) -> int:
    starts, shifts = search
    count = 0
    for i in range(slots.size):
        start, shift = starts[slots[i]], np.uint64(shifts[slots[i]])
        inside[count] = i
        count += (ranks[i] >= start) & ((ranks[i] - start) >> shift == 0)
    return count


def drawn(pairs: Pairs, use: Mask, seeds: U64, bounds: Bounds, *, ahead: bool = False) -> Mask:
    """Return which matches a draw takes, bool [M].

    Args:
        pairs: the pairs.
        use: bool [P], which pairs; matches of others are not drawn.
        seeds: uint64 [Q], ``query_seeds``.
        bounds: of the draw.
        ahead: take what is asked for beyond the draw, too.
    """
    highest = np.maximum(bounds.rank, bounds.ask) if ahead else bounds.rank
    matches, mask = _ranked(pairs, use, seeds, bounds.slot, highest)
    _draw(matches, pairs.words, bounds, ahead, mask)
    return mask


@numba.njit(cache=True, nogil=True)
def _draw(matches: Ranked, words: U64, bounds: Bounds, ahead: bool, mask: Mask) -> None:  # noqa: FBT001 - no keywords in numba
    ats, pairs, slots, ranks = matches
    _, bound, highs, lows, ask = bounds
    for i in range(ats.size):
        slot, rank = slots[i], ranks[i]
        mask[ats[i]] = (rank < bound[slot]) | (ahead & (rank < ask[slot]))
        if rank == bound[slot]:
            high, low = _big_endian(words[pairs[i], 0]), _big_endian(words[pairs[i], 1])
            mask[ats[i]] |= high < highs[slot] or (high == highs[slot] and low < lows[slot])


def first_search(caps: I64, matches: I64) -> Search:
    """Return where the bounds of queries are looked for first.

    Args:
        caps: int64 [L], how many pairs each may draw.
        matches: int64 [L], how many contain it; more than its cap.
    """
    width = caps / matches * 2.0**_BITS * (_SPREAD / STEPS)
    shift = np.ceil(np.log2(np.maximum(width, 1))).astype(np.int64)
    return Search(np.zeros(len(caps), np.uint64), np.minimum(shift, _BITS - _STEP_BITS))


class Narrowed(NamedTuple):
    """Where a bound must be; all arrays are [L].

    Attributes:
        search: if ``is_found``, its first step holds the bound; else where to look next.
        is_found: whether that step has few enough matches to be collected; counted and narrowed
            again, it stays.
        step: int64, the step in the counts that were narrowed.
    """

    search: Search
    is_found: Mask
    step: I64

    def before(self, counts: I64) -> I64:
        """Return how many matches, int64 [L, STEPS + 2] by step, stand before the step."""
        rows = np.arange(len(counts))
        return np.cumsum(counts, axis=1)[rows, self.step] - counts[rows, self.step]


def narrow(search: Search, caps: I64, counts: I64) -> Narrowed:
    """Return in which step of each query's ranks its bound is.

    Args:
        search: what was counted.
        caps: int64 [L]; fewer than the query's matches.
        counts: int64 [L, STEPS + 2], of ``count_ranks``.
    """
    rows = np.arange(len(caps))
    # the bound is the first match that is not drawn
    step = np.argmax(np.cumsum(counts, axis=1) > caps[:, None], axis=1)
    inside = (step >= 1) & (step <= STEPS)
    start = search.start + (np.maximum(step - 1, 0).astype(np.uint64) << search.shift.astype("u8"))
    few = counts[rows, step] <= np.maximum(caps // 4, _FEW)
    found = inside & (few | (search.shift == 0))
    shift = np.where(inside, search.shift - _STEP_BITS, search.shift + 4)
    shift = np.where(found, search.shift, np.clip(shift, 0, _BITS - _STEP_BITS))
    return Narrowed(Search(start, shift), found, step)


def bounds_in(collected: Collected, below: I64, caps: I64) -> tuple[I64, I64]:
    """Return for every query the collected match that is its bound, and unknown ones before it.

    Args:
        collected: all matches of the step where the bound is, of every query.
        below: int64 [L], matches before that step.
        caps: int64 [L].
    """
    slot, rank, high, low, _ = collected
    order = np.lexsort((rank, slot))
    same = (np.diff(slot[order]) == 0) & (np.diff(rank[order]) == 0)
    if same.any():  # among 64-bit ranks hardly ever: two keys sort twice as fast as four
        order = np.lexsort((low, high, rank, slot))
    starts = np.searchsorted(slot[order], np.arange(len(caps)))
    at = starts + (caps - below)
    before = np.concatenate([[0], np.cumsum(collected.unknown[order])])
    return order[at], before[at] - before[starts]


def draw(pairs: Pairs, seeds: U64, cap: int) -> Mask:
    """Return which matches are among the ``cap`` lowest-ranked of their query, all in memory.

    Args:
        pairs: the pairs.
        seeds: uint64 [Q], ``query_seeds`` of the query list.
        cap: pairs per query, at least 1.

    Returns:
        bool [M], in the order of ``pairs.queries``.

    Raises:
        IndexError: a query id that has no seed.
    """
    ids = pairs.queries
    if ids.size and not 0 <= ids.min() <= ids.max() < len(seeds):
        raise IndexError(f"query ids from {ids.min()} to {ids.max()} in a list of {len(seeds)}")
    counts = np.zeros(len(seeds), np.int64)
    tally(pairs.queries, counts)
    limited = np.flatnonzero(counts > cap)
    caps = np.full(len(limited), cap, np.int64)
    slot, everyone = slots(limited, len(seeds)), np.ones(len(pairs), np.bool_)
    matches, mask = _ranked(pairs, None, seeds, slot, _highest(caps, counts[limited]))
    if (np.bincount(matches.slot, minlength=len(caps)) <= caps).any():
        matches, mask = _ranked(pairs, None, seeds, slot, None)
    found = Narrowed(first_search(caps, counts[limited]), caps < 0, caps)
    steps = np.zeros((len(limited), STEPS + 2), np.int64)
    while not found.is_found.all():
        steps[:] = 0
        count_ranks(matches, found.search, steps)
        found = narrow(found.search, caps, steps)
    bounds = no_bounds(slot, len(limited))
    if limited.size:
        inside = collect(matches, found.search, pairs, everyone)
        at, _ = bounds_in(inside, found.before(steps), caps)
        ends = inside.rank[at], inside.high[at], inside.low[at]
        bounds = Bounds(slot, *ends, ask=bounds.ask)
    _draw(matches, pairs.words, bounds, False, mask)
    return mask


def _highest(caps: I64, matches: I64) -> U64:
    """Return ranks, one for each query, that all but surely more matches than its cap do not pass.

    Ranks are uniform: so many stay below on average as the cap, six deviations and ten.
    """
    share = (caps + 6 * np.sqrt(caps) + 10) / matches
    return (np.minimum(share, 1 - 2.0**-53) * 2.0**_BITS).astype(np.uint64)


def slots(chosen: I64, queries: int) -> I32:
    """Return for each of all queries its place among the chosen ones, or -1."""
    slot = np.full(queries, -1, np.int32)
    slot[chosen] = np.arange(len(chosen), dtype=np.int32)
    return slot


def no_bounds(slot: I32, limited: int) -> Bounds:
    """Return bounds that draw nothing of the queries with a slot."""
    return Bounds(slot, *(np.zeros(limited, np.uint64) for _ in range(4)))
