"""Up to ``cap`` pairs per query, exactly, by seeded ranks.

Every (pair, query) has a rank: ``xxh64(uid, seed=xxh64(query, seed))``; ties go by uid. A query's
*draw* is its ``cap`` lowest-ranked pairs that are not dead. This is CLIP's "up to 20,000 (image,
text) pairs per query" (arXiv 2103.00020, section 2.2). Since ranks depend on nothing but seed,
query and pair, the draw does not depend on order, number of units, or workers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder.hashing import U64, binary_buffers, hash_column, xxh64_slice

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Matches:
    """Every (pair, query) match of some pairs, flat; all arrays have one entry per match.

    Attributes:
        pair: row of the pair in its table.
        query: query id.
        rank: its rank.
        high: first eight bytes of the pair's uid, big-endian; with ``low`` the tie-break.
        low: its last eight bytes.
    """

    pair: I64
    query: I32
    rank: U64
    high: U64
    low: U64

    def where(self, mask: Mask) -> Matches:
        """Return the matches where the mask is true."""
        pair, query, rank = self.pair[mask], self.query[mask], self.rank[mask]
        return Matches(pair, query, rank, self.high[mask], self.low[mask])


def query_seeds(queries: pa.Array | pa.ChunkedArray, seed: int) -> U64:
    """Return ``xxh64(query, seed)`` for every query: the seeds of the ranks."""
    return hash_column(queries, seed)


def matches_of(uids: pa.ChunkedArray, query_ids: pa.ChunkedArray, seeds: U64) -> Matches:
    """Return all matches of a table's pairs, with their ranks.

    Args:
        uids: fixed-size binary(16).
        query_ids: list<int32>, one list per pair.
        seeds: ``query_seeds`` of the query list.

    Raises:
        IndexError: a query id outside the list.
    """
    lists = query_ids.combine_chunks()
    query = lists.flatten().to_numpy().astype(np.int32)
    if query.size and not 0 <= query.min() <= query.max() < seeds.size:
        raise IndexError(f"query ids up to {query.max()} in a list of {seeds.size}")
    counts = np.diff(lists.offsets.to_numpy())
    pair = np.repeat(np.arange(len(lists), dtype=np.int64), counts)
    data, offsets = binary_buffers(uids.combine_chunks())
    rank = np.empty(query.size, np.uint64)
    _ranks(data, offsets, pair, query, seeds, rank)
    halves = uid_halves(uids)
    return Matches(pair, query, rank, halves[pair, 0], halves[pair, 1])


def uid_halves(uids: pa.ChunkedArray) -> U64:
    """Return uids as uint64 [N, 2], so that comparing rows compares bytes."""
    data, offsets = binary_buffers(uids.combine_chunks())
    first = int(offsets[0])
    return data[first : first + 16 * len(uids)].view(">u8").astype(np.uint64).reshape(-1, 2)


@numba.njit(cache=True, nogil=True)
def _ranks(
    data: npt.NDArray[np.uint8], offsets: I64, pair: I64, query: I32, seeds: U64, out: U64
) -> None:
    for i in range(out.size):
        start = offsets[pair[i]]
        out[i] = xxh64_slice(data, start, start + 16, seeds[query[i]])


def in_draw_order(matches: Matches) -> tuple[I64, I64]:
    """Return the order of matches by (query, rank, uid), and each one's place within its query.

    Returns:
        order: int64 [M], indices into the matches.
        place: int64 [M], for ``order``'s entries: 0 for a query's lowest rank, then 1, 2, ...
    """
    order = np.lexsort((matches.low, matches.high, matches.rank, matches.query))
    query = matches.query[order]
    starts = np.flatnonzero(np.r_[True, query[1:] != query[:-1]]) if query.size else query
    lengths = np.diff(np.r_[starts, query.size])
    return order, np.arange(query.size) - np.repeat(starts, lengths)


def lowest(matches: Matches, size: I64) -> Mask:
    """Return which matches are among the ``size[query]`` lowest-ranked of their query."""
    order, place = in_draw_order(matches)
    mask = np.zeros(order.size, np.bool_)
    mask[order] = place < size[matches.query[order]]
    return mask


def ids_where(matches: Matches, mask: Mask, pairs: int) -> pa.ListArray:
    """Return, for each of ``pairs`` pairs, the sorted ids of the queries where the mask is true.

    Matches must stand in the order of their pairs and, within one, of ascending ids.
    """
    chosen = matches.where(mask)
    counts = np.bincount(chosen.pair, minlength=pairs)
    offsets = np.r_[0, np.cumsum(counts)].astype(np.int32)
    field = pa.field("element", pa.int32(), nullable=False)
    return pa.ListArray.from_arrays(offsets, chosen.query, type=pa.list_(field))
