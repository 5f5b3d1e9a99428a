"""What ranks first of counts that are too many to sort: by count, by PMI, by views.

Pointwise mutual information of a gram is ``log2(p(gram) / product of p(its words)) / (words - 1)``
in bits, each probability being a count over the number of tokens. For two words that is equation 1
of Church and Hanks 1990, named by CLIP (arXiv 2103.00020, footnote 1), which gives no cut; for more
it is the specific correlation of Van de Cruys 2011, shared out over the pairs of neighbours so that
lengths can be compared. A floor on counts is needed: without one, PMI is highest for grams seen
once, of words seen once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder.hashing import binary_buffers, hash_column, xxh64_slice
from wit_builder.queries.grams import GRAMS

SCORED = GRAMS.append(pa.field("pmi", pa.float64()))
"""Counts with the PMI of each gram, in bits."""

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]

_SPACE = np.uint8(ord(" "))
_ONE = np.uint64(1)


class Best:
    """Keeps the rows that rank first, of tables that come one after the other.

    Args:
        schema: of the tables.
        most: rows to keep; memory is some four times that.
        order: columns to sort by, each with ``"ascending"`` or ``"descending"``. The first is a
            number, highest first; all together they tell any two rows apart.

    ``seen`` is how many rows were added.
    """

    def __init__(self, schema: pa.Schema, most: int, order: list[tuple[str, str]]) -> None:
        self.seen = 0
        self._most, self._order = most, order
        self._spare = most + (1 << 16)
        self._tables = [schema.empty_table()]
        self._least: float | None = None

    def add(self, table: pa.Table) -> None:
        """Consider some rows."""
        self.seen += table.num_rows
        if self._least is not None:
            table = table.filter(pc.greater_equal(table[self._order[0][0]], self._least))
        self._tables.append(table)
        if sum(t.num_rows for t in self._tables) > self._most + self._spare:
            self._tables = [self.rows()]

    def rows(self) -> pa.Table:
        """Return the rows that rank first so far, in order."""
        best = pa.concat_tables(self._tables).sort_by(self._order).slice(0, self._most)
        if best.num_rows == self._most > 0:
            self._least = best[self._order[0][0]][self._most - 1].as_py()
        return best


class Vocabulary:
    """How often each word occurs, for the words of grams.

    Words are told apart by 64-bit hashes, which are checked to differ. A word that is not in the
    vocabulary is taken for one that is with a chance of one in 10**12.

    Args:
        words: tables with columns ``gram`` and ``count``.
        tokens: how many were counted in all.
    """

    def __init__(self, words: Iterable[pa.Table], tokens: int) -> None:
        tables = list(words)
        self._tokens = float(tokens)
        for self._seed in range(8):
            keys = _joined([hash_column(table["gram"], self._seed) for table in tables])
            if _all_differ(keys):
                break
        else:
            raise AssertionError("words share a 64-bit hash under every seed")
        self._slots = np.zeros(2 << (2 * keys.size + 1).bit_length(), np.uint64)
        _fill(self._slots, keys, _joined([table["count"].to_numpy() for table in tables]))

    def pmi(self, grams: pa.Table) -> pa.Array:
        """Return the PMI of every gram, in bits; null where a word of it was not counted.

        Args:
            grams: table with columns ``gram`` and ``count``.

        Returns:
            float64 array, rounded to six decimals: library versions differ in the last bits of
            ``log2``, and the same counts must give the same bytes.
        """
        together = grams["count"].to_numpy().astype(np.float64)
        data, offsets = binary_buffers(grams["gram"].combine_chunks())
        # in two passes, so that the second has many look-ups under way at once: twice as fast
        hashes, ends = _hash_words(data, offsets, np.uint64(self._seed))
        lift = _lift(together, _counts(self._slots, hashes), ends, self._tokens)
        known = lift > 0
        words = np.diff(ends, prepend=0)
        bits = np.log2(np.where(known, lift, 1.0)) / np.maximum(words - 1, 1)
        return pa.array(np.round(bits, 6), mask=~known)


def _joined(arrays: list[npt.NDArray[np.integer]]) -> U64:
    return np.concatenate([np.empty(0, np.uint64), *(a.astype(np.uint64) for a in arrays)])


def _all_differ(keys: U64) -> bool:
    """Return whether no key stands twice, and none is the one that marks an empty slot."""
    ordered = np.sort(keys)
    return not (ordered[1:] == ordered[:-1]).any() and not (ordered[:1] == 0).any()


@numba.njit(cache=True, nogil=True)
def _slot(slots: U64, key: np.uint64) -> np.uint64:
    """Return the place of a key, or of the empty slot where it belongs."""
    mask = np.uint64(slots.size // 2 - 1)
    at = key & mask
    while slots[2 * at] != key and slots[2 * at] != 0:
        at = (at + _ONE) & mask
    return 2 * at


@numba.njit(cache=True, nogil=True)
def _fill(slots: U64, keys: U64, counts: U64) -> None:
    for i in range(keys.size):
        at = _slot(slots, keys[i])
        slots[at], slots[at + _ONE] = keys[i], counts[i]


@numba.njit(cache=True, nogil=True)
def _hash_words(data: npt.NDArray[np.uint8], offsets: I64, seed: np.uint64) -> tuple[U64, I64]:
    """Return the hashes of all words of the grams, and where those of each gram end."""
    ends = np.zeros(offsets.size - 1, np.int64)
    hashes = np.empty((offsets[-1] - offsets[0]) // 2 + offsets.size, np.uint64)
    words = 0
    for i in range(ends.size):
        begin = offsets[i]
        for at in range(begin, offsets[i + 1] + 1):
            if at == offsets[i + 1] or data[at] == _SPACE:
                hashes[words] = xxh64_slice(data, begin, at, seed)
                words += 1
                begin = at + 1
        ends[i] = words
    return hashes[:words], ends


@numba.njit(cache=True, nogil=True)
def _counts(slots: U64, hashes: U64) -> F64:
    """Return how often each word occurs; 0 for one that was not counted."""
    counts = np.empty(hashes.size, np.float64)
    for i in range(hashes.size):
        counts[i] = np.float64(slots[_slot(slots, hashes[i]) + _ONE])
    return counts


@numba.njit(cache=True, nogil=True)
def _lift(together: F64, counts: F64, ends: I64, tokens: float) -> F64:
    """Return p(gram) / product of p(word) of every gram; 0 where a word was not counted."""
    lift = together / tokens
    word = 0
    for i in range(lift.size):
        while word < ends[i]:
            lift[i] = lift[i] * (tokens / counts[word]) if counts[word] else 0.0
            word += 1
    return lift


def scored(
    grams: Iterable[pa.Table], vocabulary: Vocabulary, least: float | None = None
) -> Iterator[pa.Table]:
    """Yield grams with their PMI as a column ``pmi``, those without or below ``least`` left out."""
    for table in grams:
        pmi = vocabulary.pmi(table)
        keep = pmi.is_valid() if least is None else pc.greater_equal(pmi, least).fill_null(False)
        yield table.append_column("pmi", pmi).filter(keep)
