"""How often words, and runs of neighbouring words, occur: exact, in bounded memory.

A *gram* is one normalised token, or several that are neighbours in a sentence, with single spaces
between. Sentences end at a line break and at ``. ! ? ; :`` followed by white space; they are cut
before normalising, which removes the marks. Abbreviations ("Dr. Smith") are cut too, which loses a
few pairs; a mark before a closing quotation mark or bracket does not cut, which adds a few. A token
of more than ``MAX_TOKEN_BYTES`` is no word: it is left out, and ends the run it stands in.

``Counter`` holds a table of tokens, and one of grams for each length from two on. Their sizes are
fixed. When one is about half full, the counts so far are handed on as a *partial* table, and
counting goes on with empty ones. Partial tables are summed later, a hash bucket at a time.

Tokens are numbered from 1 in order of appearance; a text becomes a row of numbers, with 0 between
sentences. A gram's key is the place of the gram without its last token (for two tokens, the number
of the first) with the number of its last token. So equal keys are equal grams: nothing here depends
on hashes being different.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder.hashing import binary_buffers
from wit_builder.text import normalise_column

GRAMS = pa.schema([("gram", pa.string()), ("n", pa.int8()), ("count", pa.int64())])
"""Counts, partial or merged: ``n`` is the number of tokens."""

MAX_TOKEN_BYTES = 80
"""A longer token is no word: a key, a sequence, or text of a script without spaces. It also keeps a
table of grams of five tokens within the 2 GiB of a string array."""

_WORD_SLOTS = 1 << 21
_GRAM_SLOTS = 1 << 22
_STEP = 1 << 19
"""Tokens taken at a time; so many entries can be added to a table after it was found half empty."""

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_SPACE = np.uint8(ord(" "))
_PRIME = np.uint64(0x100000001B3)  # FNV-1a, 64 bit
_BASIS = np.uint64(0xCBF29CE484222325)
_MIX = np.uint64(0xFF51AFD7ED558CCD)  # MurmurHash3's 64-bit finaliser
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)


class _Words(NamedTuple):
    """The table of tokens, as the kernels see it.

    Attributes:
        slots: open addressing; a token's hash, and its number (0: empty).
        starts: where token k + 1 begins in ``letters``; it ends where the next begins.
        letters: bytes of the tokens.
        counts: how often each occurs.
        used: how many there are, and how many were too long.
    """

    slots: U64
    starts: I64
    letters: U8
    counts: I64
    used: I64


class Counter:
    """Counts the grams of texts.

    Args:
        longest: tokens of the longest gram, at least 2.
        word_slots: size of the table of tokens, a power of two.
        gram_slots: size of the table of grams of each length, a power of two.
        step: tokens taken at a time, fewer than a quarter of the slots.

    After (and during) counting, ``tokens`` is how many were counted, and ``too_long`` how many were
    left out.
    """

    def __init__(
        self,
        longest: int = 2,
        word_slots: int = _WORD_SLOTS,
        gram_slots: int = _GRAM_SLOTS,
        step: int = _STEP,
    ) -> None:
        assert step <= min(word_slots, gram_slots) // 4
        self.tokens = 0
        self.too_long = 0
        self._words = _Words(
            slots=np.zeros(2 * word_slots, np.uint64),
            starts=np.zeros(word_slots + 1, np.int64),
            letters=np.empty(0, np.uint8),
            counts=np.zeros(word_slots, np.int64),
            used=np.zeros(2, np.int64),
        )
        # a key plus one (0: empty) and a count in each slot
        self._grams = [np.zeros(2 * gram_slots, np.uint64) for _ in range(longest - 1)]
        self._used = [0] * (longest - 1)
        # numbers of the last tokens of the sentence, then those of the step
        self._numbers = np.zeros(longest - 1 + step, np.uint32)
        self._context = 0

    def add(self, texts: pa.Array) -> Iterator[pa.Table]:
        """Count the grams of a string array; yield a partial table whenever the tables are full."""
        data, offsets = binary_buffers(normalise_column(sentences(texts)))
        at = np.array([0, offsets[0]])
        while at[0] < offsets.size - 1:
            if self._full():
                yield self.take()
            self._step(data, offsets, at)

    def _full(self) -> bool:
        words, grams = self._words.slots.size // 4, self._grams[0].size // 4
        return bool(self._words.used[0] > words) or max(self._used) > grams

    def _step(self, data: U8, offsets: I64, at: I64) -> None:
        self._make_room(int(offsets[-1] - at[1]))
        context = self._context
        size = _number(data, offsets, at, self._words, self._numbers, context)
        numbers = self._numbers[:size]
        places = numbers.copy()
        for level, table in enumerate(self._grams):
            self._used[level] += _pair(numbers, places, context, table)
        self._keep_context(numbers)

    def _make_room(self, coming: int) -> None:
        words = self._words
        needed = int(words.starts[words.used[0]]) + coming
        if needed > words.letters.size:
            letters = np.empty(needed + needed // 2, np.uint8)
            letters[: words.letters.size] = words.letters
            self._words = words._replace(letters=letters)

    def _keep_context(self, numbers: U32) -> None:
        """Keep the tokens that a gram which ends in the next step may begin with."""
        tail = numbers[-len(self._grams) :]
        breaks = np.flatnonzero(tail == 0)
        tail = tail[breaks[-1] + 1 :] if breaks.size else tail
        self._context = tail.size
        self._numbers[: tail.size] = tail.copy()

    def take(self) -> pa.Table:
        """Return what was counted since the last time (``GRAMS``); counting begins anew."""
        words = self._words
        self.tokens += int(words.counts.sum())
        self.too_long += int(words.used[1])
        parts = [_words_of(words)]
        parts += [_grams_of(words, self._grams[:k]) for k in range(1, len(self._grams) + 1)]
        context = [_spelling(words, number) for number in self._numbers[: self._context]]
        for array in (words.slots, words.counts, words.used, *self._grams):
            array.fill(0)
        self._used = [0] * len(self._grams)
        for k, token in enumerate(context):
            self._make_room(token.size)
            self._numbers[k] = _enter(self._words, token)
        return pa.concat_tables(parts)


def _spelling(words: _Words, number: int) -> U8:
    return words.letters[words.starts[number - 1] : words.starts[number]].copy()


def sentences(texts: pa.Array) -> pa.Array:
    """Return the sentences of a string array, with the marks that end them, in order."""
    data, offsets = binary_buffers(texts)
    ends = _sentence_ends(data, offsets)
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), texts.buffers()[2]]
    return pa.Array.from_buffers(pa.string(), ends.size - 1, buffers)


@numba.njit(cache=True, nogil=True)
def _sentence_ends(data: U8, offsets: I64) -> I64:
    """Return where the first sentence begins, and where each one ends."""
    ends = np.empty(offsets.size + np.sum(_MARKS[data[offsets[0] : offsets[-1]]] > 0), np.int64)
    ends[0] = offsets[0]
    count = 1
    for i in range(offsets.size - 1):
        for at in range(offsets[i], offsets[i + 1]):
            kind = _MARKS[data[at]]
            if kind == 0:
                continue
            if kind == 2 or (at + 1 < offsets[i + 1] and _BLANK[data[at + 1]]):
                ends[count] = at + 1
                count += 1
        ends[count] = offsets[i + 1]
        count += 1
    return ends[:count]


def _kinds(blanks: bytes, marks: bytes) -> tuple[U8, npt.NDArray[np.bool_]]:
    kinds, blank = np.zeros(256, np.uint8), np.zeros(256, np.bool_)
    kinds[list(marks)] = 1
    kinds[ord("\n")] = 2
    blank[list(blanks)] = True
    return kinds, blank


_MARKS, _BLANK = _kinds(b" \t\n\r\f", b".!?;:")
"""Per byte: 1 ends a sentence if white space follows, 2 ends it always; and what is white space."""


@numba.njit(cache=True, nogil=True)
def _number(data: U8, offsets: I64, at: I64, words: _Words, numbers: U32, first: int) -> int:
    """Fill in the numbers of tokens from index ``first`` on; return where they end.

    ``at`` is a sentence and the byte to read on from, and moves on: to the end of all, or to where
    ``numbers`` was full.
    """
    begin = at[1]
    counts = words.counts
    for i in range(at[0], offsets.size - 1):
        end = offsets[i + 1]
        while begin < end:
            if first == numbers.size:
                at[0], at[1] = i, begin
                return first
            stop, key = _token(data, begin, end)
            if stop - begin <= MAX_TOKEN_BYTES:
                number = _word(words, key, data, begin, stop)
                counts[number - 1] += 1
                numbers[first] = number
            else:
                words.used[1] += 1
                numbers[first] = 0
            first += 1
            begin = stop + 1
        if first == numbers.size:
            at[0], at[1] = i, end
            return first
        numbers[first] = 0
        first += 1
        begin = end
    at[0], at[1] = offsets.size - 1, begin
    return first


@numba.njit(cache=True, nogil=True, inline="always")
def _token(data: U8, begin: int, end: int) -> tuple[int, np.uint64]:
    """Return where the token that begins here ends, and its hash."""
    key = _BASIS
    while begin < end and data[begin] != _SPACE:
        key = (key ^ np.uint64(data[begin])) * _PRIME
        begin += 1
    return begin, (key ^ key >> _HALF) * _MIX


@numba.njit(cache=True, nogil=True, inline="always")
def _word(words: _Words, key: np.uint64, data: U8, begin: int, end: int) -> np.int64:
    """Return the number of a token, entering it if it is new."""
    mask = np.uint64(words.slots.size // 2 - 1)
    at = key >> _HALF & mask
    while words.slots[2 * at + _ONE] != 0:
        number = np.int64(words.slots[2 * at + _ONE])
        if words.slots[2 * at] == key:
            first = words.starts[number - 1]
            if _same(words.letters, first, words.starts[number], data, begin, end):
                return number
        at = (at + _ONE) & mask
    words.used[0] += 1
    number = words.used[0]
    words.slots[2 * at] = key
    words.slots[2 * at + _ONE] = np.uint64(number)
    first = words.starts[number - 1]
    words.starts[number] = first + end - begin
    for i in range(end - begin):
        words.letters[first + i] = data[begin + i]
    return number


@numba.njit(cache=True, nogil=True, inline="always")
def _same(a: U8, begin_a: int, end_a: int, b: U8, begin_b: int, end_b: int) -> bool:
    if end_a - begin_a != end_b - begin_b:
        return False
    for i in range(end_a - begin_a):  # noqa: SIM110 - numba inlines no generators
        if a[begin_a + i] != b[begin_b + i]:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _enter(words: _Words, token: U8) -> np.int64:
    """Return the number of a token, entering it without an occurrence if it is new."""
    stop, key = _token(token, 0, token.size)
    return _word(words, key, token, 0, stop)


@numba.njit(cache=True, nogil=True)
def _pair(numbers: U32, places: U32, context: int, table: U64) -> int:
    """Count the grams that are one token longer than those at ``places``; return how many are new.

    ``places`` tells, for every token, the place plus one of the shorter gram that ends there (0:
    none), and is replaced by that of the longer. Grams that end before index ``context`` have been
    counted already, and are entered as beginnings of others only.
    """
    mask = np.uint64(table.size // 2 - 1)
    before = np.uint64(0)
    entered = 0
    for j in range(numbers.size):
        prefix, before = before, np.uint64(places[j])
        places[j] = 0
        if prefix == 0 or numbers[j] == 0:
            continue
        stored = (prefix << _HALF | np.uint64(numbers[j])) + _ONE
        at = ((stored ^ stored >> _HALF) * _MIX) >> _HALF & mask
        while table[2 * at] != stored and table[2 * at] != 0:
            at = (at + _ONE) & mask
        if table[2 * at] == 0:
            table[2 * at] = stored
            entered += 1
        table[2 * at + _ONE] += np.uint64(j >= context)
        places[j] = at + _ONE
    return entered


def _words_of(words: _Words) -> pa.Table:
    size = words.used[0]
    ends = words.starts[: size + 1].copy()
    return _table(words.letters[: ends[-1]].copy(), ends, 1, words.counts[:size].copy())


def _grams_of(words: _Words, tables: list[U64]) -> pa.Table:
    """Return the grams of the last of the tables, by way of their beginnings in the others."""
    n = len(tables) + 1
    places = np.flatnonzero(tables[-1][::2])
    counts = tables[-1][2 * places + 1].astype(np.int64)
    tokens = np.empty((places.size, n), np.int64)
    for k in range(n - 1, 0, -1):
        keys = tables[k - 1][2 * places] - _ONE
        tokens[:, k] = keys & _LOW
        places = (keys >> _HALF).astype(np.int64) - 1
    tokens[:, 0] = places + 1
    return _table(*_spelled(words.letters, words.starts, tokens), n, counts)


@numba.njit(cache=True, nogil=True)
def _spelled(letters: U8, starts: I64, tokens: I64) -> tuple[U8, I64]:
    """Return the letters of grams, given as rows of token numbers, and where each begins."""
    ends = np.zeros(len(tokens) + 1, np.int64)
    for row in range(len(tokens)):
        length = tokens.shape[1] - 1
        for number in tokens[row]:
            length += starts[number] - starts[number - 1]
        ends[row + 1] = ends[row] + length
    out = np.empty(ends[-1], np.uint8)
    to = 0
    for row in range(len(tokens)):
        for k in range(tokens.shape[1]):
            if k:
                out[to] = _SPACE
                to += 1
            for i in range(starts[tokens[row, k] - 1], starts[tokens[row, k]]):
                out[to] = letters[i]
                to += 1
    return out, ends


def _table(letters: U8, ends: I64, n: int, counts: I64) -> pa.Table:
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(letters)]
    grams = pa.Array.from_buffers(pa.large_string(), len(counts), buffers)
    sizes = pa.array(np.full(len(counts), n, np.int8))
    table = pa.table([grams.cast(pa.string()), sizes, pa.array(counts)], schema=GRAMS)
    # what is there as the beginning of another gram only has no count
    return table if counts.all() else table.filter(pa.array(counts > 0))
