"""Which queries a text contains: a walk through a hash table of token sequences.

Queries and texts go through the one normaliser, so both are tokens separated by single spaces. The
table holds a 64-bit hash of every query, and of every token sequence that a query begins with. From
each token of a text the walk goes on as long as the table knows the sequence read so far; an entry
that is a query is confirmed by comparing bytes. So a match is exact: equal tokens give equal hashes
(nothing is missed), and a hash that is equal by chance fails the comparison (nothing is invented).
Two queries with one hash are told apart when the table is built, by taking another seed.

This module needs nothing of a run, and can be used alone, on any Arrow string column::

    >>> import pyarrow as pa
    >>> from wit_builder.curate.match import Matcher
    >>> matcher = Matcher(pa.array(["dog", "hot dog", "Paris, Texas"]))
    >>> matcher.match(pa.array(["(Dog)", "A hot-dog in Paris Texas", "category"])).to_pylist()
    [[0], [0, 1, 2], []]
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder.hashing import binary_buffers
from wit_builder.text import normalise_column

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

MATCHES = pa.list_(pa.field("element", pa.int32(), nullable=False))
"""What ``Matcher`` returns: ids of queries, ascending, each once."""

_SPACE = np.uint8(ord(" "))
_GOES_ON = np.uint64(1)
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio (Knuth, TAOCP vol. 3, 6.4)
_MIX = np.uint64(0xFF51AFD7ED558CCD)  # MurmurHash3's 64-bit finaliser
_PRIME = np.uint64(0x100000001B3)  # FNV-1a, 64 bit
_SEEDS = 8


class _Table(NamedTuple):
    """The table, as the kernels see it.

    Attributes:
        seed: of all hashes.
        slots: open addressing; a key and a value each. A key of 0 marks an empty slot. The value
            is the query's position plus one (0: none), twice, plus one if a query goes on here.
        present: a Bloom filter over the keys, small enough for the cache, that answers most misses.
        data: bytes of the queries, and
        offsets: where each begins.
    """

    seed: np.uint64
    slots: U64
    present: U64
    data: U8
    offsets: I64


class Matcher:
    """Finds, in every text, the queries whose tokens stand there as consecutive whole tokens.

    Args:
        queries: string column without nulls; normalised here. Positions are the ids. Of queries
            that normalise to the same string the first is found; an empty one never is.
    """

    def __init__(self, queries: pa.Array | pa.ChunkedArray) -> None:
        normalised = normalise_column(queries)
        data, offsets = binary_buffers(normalised)
        sequences = int(np.count_nonzero(data == _SPACE)) + len(normalised)
        slots = 1 << (2 * sequences + 16).bit_length()
        for seed in range(_SEEDS):
            self._table = _Table(
                np.uint64(seed),
                np.zeros(2 * slots, np.uint64),
                np.zeros(slots // 8, np.uint64),
                data,
                offsets,
            )
            self._depth = _build(self._table)
            if self._depth:
                return
        raise AssertionError("queries share a 64-bit hash under every seed")

    def match(self, texts: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Return, for every text, the ids of the queries it contains.

        Args:
            texts: string column without nulls, as found; normalised here.

        Returns:
            ``list<int32>`` array (``MATCHES``) of the column's length, in its order.
        """
        return self.match_normalised(normalise_column(texts))

    def match_normalised(self, texts: pa.Array) -> pa.Array:
        """Do as ``match``, for a string array that is normalised already."""
        ids, ends = _match(*binary_buffers(texts), self._table, self._depth)
        assert ends[-1] < 2**31, "more matches than a list array can hold: pass fewer texts at once"
        return pa.ListArray.from_arrays(
            pa.array(ends.astype(np.int32)), pa.array(ids, pa.int32()), type=MATCHES
        )


@numba.njit(cache=True, inline="always")
def _extend(sequence: np.uint64, token: np.uint64) -> np.uint64:
    """Return the hash of a sequence of tokens and one more; never 0, which marks an empty slot."""
    mixed = ((sequence * _ODD) ^ token) * _MIX
    mixed ^= mixed >> np.uint64(32)
    return mixed | np.uint64(mixed == 0)


@numba.njit(cache=True, inline="always")
def _slot(slots: U64, key: np.uint64) -> np.uint64:
    """Return the place of a key, or of the empty slot where it belongs."""
    mask = np.uint64(slots.size // 2 - 1)
    at = key & mask
    while slots[2 * at] != key and slots[2 * at] != 0:
        at = (at + np.uint64(1)) & mask
    return 2 * at


@numba.njit(cache=True, inline="always")
def _mark(present: U64, key: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return the word and the two bits of the key in the filter that answers most misses."""
    bits = np.uint64(1) << (key >> np.uint64(58)) | np.uint64(1) << (
        key >> np.uint64(52) & np.uint64(63)
    )
    return (key >> np.uint64(8)) & np.uint64(present.size - 1), bits


@numba.njit(cache=True, inline="always")
def _tokens(data: U8, begin: int, end: int, seed: np.uint64, starts: I64, hashes: U64) -> int:
    """Fill in where the tokens of a text begin, and their hashes; return how many there are.

    Token ``k`` ends at ``starts[k + 1] - 1``, the last one at the text's end.
    """
    count = 0
    running = seed
    starts[0] = begin
    for at in range(begin, end):
        byte = data[at]
        if byte == _SPACE:
            hashes[count] = running
            count += 1
            starts[count] = at + 1
            running = seed
        else:
            running = (running ^ np.uint64(byte)) * _PRIME
    if end > begin:
        hashes[count] = running
        count += 1
        starts[count] = end + 1
    return count


@numba.njit(cache=True)
def _build(table: _Table) -> int:
    """Enter every query and its beginnings; return the tokens of the longest, at least 1.

    Returns 0 if two different queries have the same hash under this seed.
    """
    slots, data, offsets = table.slots, table.data, table.offsets
    longest = np.max(np.diff(offsets)) + 2 if offsets.size > 1 else 2
    starts, hashes = np.empty(longest, np.int64), np.empty(longest, np.uint64)
    depth = 1
    for query in range(offsets.size - 1):
        begin, end = offsets[query], offsets[query + 1]
        count = _tokens(data, begin, end, table.seed, starts, hashes)
        depth = max(depth, count)
        sequence = table.seed
        for k in range(count):
            sequence = _extend(sequence, hashes[k])
            at = _slot(slots, sequence)
            slots[at] = sequence
            word, bits = _mark(table.present, sequence)
            table.present[word] |= bits
            if k < count - 1:
                slots[at + 1] |= _GOES_ON
                continue
            holder = np.int64(slots[at + 1] >> np.uint64(1)) - 1
            if holder < 0:
                slots[at + 1] |= np.uint64(query + 1) << np.uint64(1)
            elif not _is_query(table, holder, data, begin, end - begin):
                return 0
    return depth


@numba.njit(cache=True, inline="always")
def _is_query(table: _Table, query: np.int64, data: U8, begin: int, length: int) -> bool:
    """Return whether so many bytes are exactly the query's."""
    first = table.offsets[query]
    if table.offsets[query + 1] - first != length:
        return False
    for i in range(length):  # noqa: SIM110 - numba inlines no generators
        if table.data[first + i] != data[begin + i]:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _match(data: U8, offsets: I64, table: _Table, depth: int) -> tuple[npt.NDArray[np.int32], I64]:
    """Return all matches one text after the other, and where each text's end (from 0)."""
    seed, slots, present = table.seed, table.slots, table.present
    texts = offsets.size - 1
    longest = np.max(np.diff(offsets)) + 2 if texts else 2
    starts, hashes = np.empty(longest, np.int64), np.empty(longest, np.uint64)
    # `found` holds one text's matches: a local that is never rebound keeps the inner loop tight
    found = np.empty((longest // 2 + 1) * depth, np.int32)
    out = np.empty(4 * texts + found.size, np.int32)
    ends = np.zeros(texts + 1, np.int64)
    size = 0
    for text in range(texts):
        hits = 0
        count = _tokens(data, offsets[text], offsets[text + 1], seed, starts, hashes)
        for i in range(count):
            sequence = seed
            for k in range(i, count):
                sequence = _extend(sequence, hashes[k])
                word, bits = _mark(present, sequence)
                if present[word] & bits != bits:
                    break
                value = slots[_slot(slots, sequence) + 1]
                query = np.int64(value >> np.uint64(1)) - 1
                length = starts[k + 1] - 1 - starts[i]
                if query >= 0 and _is_query(table, query, data, starts[i], length):
                    found[hits] = query
                    hits += 1
                if not value & _GOES_ON:
                    break
        hits = _sort_unique(found, hits)
        if size + hits > out.size:
            out = np.concatenate((out, np.empty_like(out)))
        out[size : size + hits] = found[:hits]
        size += hits
        ends[text + 1] = size
    return out[:size].copy(), ends


@numba.njit(cache=True)
def _sort_unique(values: npt.NDArray[np.int32], count: int) -> int:
    """Sort ``values[:count]``, each once, in place; return how many are left."""
    if count > 64:
        values[:count] = np.sort(values[:count])
    kept = 0
    for i in range(count):
        value = values[i]
        at = kept
        while at > 0 and values[at - 1] > value:
            at -= 1
        if at > 0 and values[at - 1] == value:
            continue
        for j in range(kept, at, -1):
            values[j] = values[j - 1]
        values[at] = value
        kept += 1
    return kept
