"""Pairs with the queries that their texts contain, as arrays over Arrow's buffers."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder.curate.ranks import RUN
from wit_builder.hashing import U64

I32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


class Pairs(NamedTuple):
    """Some pairs with the queries that their texts contain.

    Attributes:
        words: uint64 [P, 2], the uids as little-endian words.
        offsets: int32 [P + 1]: where each pair's queries begin in ``queries``, and the end.
        queries: int32 [M], ids; one for every (pair, query) match.
    """

    words: U64
    offsets: I32
    queries: I32

    def __len__(self) -> int:
        return len(self.words)


def pairs_of(uids: pa.ChunkedArray | pa.Array, query_ids: pa.ChunkedArray | pa.Array) -> Pairs:
    """Return columns of fixed-size binary(16) and list<int32>, one list per pair, as arrays."""
    lists = query_ids.combine_chunks() if isinstance(query_ids, pa.ChunkedArray) else query_ids
    offsets = lists.offsets.to_numpy()
    offsets = offsets - offsets[0] if offsets[0] else offsets
    return Pairs(uid_words(uids), offsets, lists.flatten().to_numpy())


def uid_words(uids: pa.ChunkedArray | pa.Array) -> U64:
    """Return uids as little-endian uint64 [N, 2]."""
    column = uids.combine_chunks() if isinstance(uids, pa.ChunkedArray) else uids
    data = np.frombuffer(column.buffers()[1] or b"", "<u8")
    return data.reshape(-1, 2)[column.offset : column.offset + len(column)]


def ids_where(pairs: Pairs, mask: Mask) -> pa.ListArray:
    """Return, for each pair, the ids of the queries where the mask is true, in their order."""
    ends = np.concatenate([[0], np.cumsum(mask)])
    field = pa.field("element", pa.int32(), nullable=False)
    offsets = ends[pairs.offsets].astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pairs.queries[mask], type=pa.list_(field))


def any_where(pairs: Pairs, mask: Mask) -> Mask:
    """Return which pairs have a match where the mask is true."""
    found = np.empty(len(pairs), np.bool_)
    _any_where(pairs.offsets, mask, found)
    return found


@numba.njit(cache=True, nogil=True)
def _any_where(offsets: I32, mask: Mask, found: Mask) -> None:
    for pair in range(found.size):
        start = np.uintp(offsets[pair])
        size = offsets[pair + 1] - offsets[pair]
        any_of_pair = False
        if start + np.uintp(RUN) <= np.uintp(mask.size):
            for k in range(RUN):  # without a branch where a pair ends: it cannot be foretold
                any_of_pair |= mask[start + np.uintp(k)] & (k < size)
            for k in range(RUN, size):
                any_of_pair |= mask[start + np.uintp(k)]
        else:
            for k in range(size):
                any_of_pair |= mask[start + np.uintp(k)]
        found[pair] = any_of_pair
