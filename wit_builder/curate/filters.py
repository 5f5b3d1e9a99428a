"""Cheap filters: texts that are too short, too long, file names, or say nothing of the picture.

They come before matching, over whole columns. A text is a *file name* if it is one word that ends
as pictures do (``hero-banner_final2.webp``), or if nothing is left of it without what cameras,
phones and content systems put into names: ``IMG_1234``, ``20190101_123456``, ``image-3``,
``WhatsApp Image 2020-01-01 at 10.00.00.jpeg``, hashes. It is *boilerplate* if it is one of
``PHRASES``, or made of ``WORDS`` (and ``NEUTRAL`` ones, and numbers) alone: ``logo``, ``image 3``,
``photo 1 of 12``. One word that says something is enough to be neither: ``Logo of example.com``,
``two dogs.jpg``. So is being the name of something else: ``Avatar (2009)``, ``DJI Mini 2``.

A boilerplate word can be a query, too: with "logo" in the query list, a text that is nothing but
"logo" is rejected all the same. It tells that picture from no other logo of the web; texts that say
whose logo it is remain, and give that query its pairs.

Words are compared after the normaliser, by their 64-bit hash: the chance that a given word is taken
for one of the five hundred here is less than one in 10**16.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder.curate import sayings
from wit_builder.hashing import binary_buffers, hash_column, xxh64_slice
from wit_builder.tables import Reason
from wit_builder.text import normalise_column

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_KEPT, _FILE_NAME, _BOILERPLATE = (np.uint8(n) for n in range(3))

# What a token can be, as bits. _OWN is beside _WORD or _NAME: it can name something, too.
_WORD, _NAME, _ENDING, _NEUTRAL, _UNSPACED, _NUMBER, _HASH, _OWN = (
    np.uint8(1 << n) for n in range(8)
)
_SPACE, _DOT, _P, _X, _HASHTAG = (np.uint8(ord(c)) for c in " .px#")
_SLOTS = 1 << 12
_LONGEST_ENDING = 4
_LEAST_DIGITS = 6
"""Digits that make a number a name: a date, a time, an id. Years and house numbers have fewer."""
_MOST_YEAR_DIGITS = 6
"""Digits of a text that has a year, and no date: ``1970``, ``1970-71``, ``No. 3, 1970``."""
_LEAST_OWN_DIGITS = 4
"""Digits that make a file's name of a word that is also a product's; products have fewer."""
_LEAST_CHANGES = 4
"""Changes between letters and digits in an id; ``worldcup2018russia`` has two."""
_LEAST_HASH = 8
_LEAST_HASHES = 16
"""Digits of hexadecimal numbers, all together, that make a name: half a UUID."""


class _Words(NamedTuple):
    """The words, as the kernel sees them: open addressing; a key of 0 marks an empty slot."""

    keys: U64
    bits: U8


def too_short(texts: pa.Array, min_chars: int) -> Mask:
    """Return which texts have fewer characters (code points) than that."""
    return _mask(pc.less(pc.utf8_length(texts), min_chars))


def too_long(texts: pa.Array, max_chars: int) -> Mask:
    """Return which texts have more characters (code points) than that."""
    return _mask(pc.greater(pc.utf8_length(texts), max_chars))


def say_nothing(texts: pa.Array, normalised: pa.Array) -> dict[Reason, Mask]:
    """Return which texts are file names, and which are boilerplate; none is both.

    Args:
        texts: string array, as found, white space collapsed.
        normalised: the same texts, normalised.
    """
    out = np.empty(len(texts), np.uint8)
    _judge(*binary_buffers(texts), *binary_buffers(normalised), _words(), out)
    phrase = _mask(pc.is_in(normalised, value_set=_phrases(sayings.PHRASES)))
    file_name = out == _FILE_NAME
    boilerplate = (phrase & ~file_name) | (out == _BOILERPLATE)
    found = np.flatnonzero(boilerplate)
    namesakes = pc.is_in(normalised.take(found), value_set=_phrases(sayings.NAMESAKES))
    boilerplate[found[_mask(namesakes)]] = False
    return {Reason.FILE_NAME: file_name, Reason.BOILERPLATE: boilerplate}


def _mask(values: pa.Array) -> Mask:
    return values.to_numpy(zero_copy_only=False)


@functools.cache
def _phrases(listed: str) -> pa.Array:
    return normalise_column(pa.array(sayings.lines(listed)))


@functools.cache
def _words() -> _Words:
    words = _Words(np.zeros(_SLOTS, np.uint64), np.zeros(_SLOTS, np.uint8))
    for listed, bits in (
        (sayings.WORDS, _WORD),
        (sayings.TITLES, _WORD | _OWN),
        (sayings.NAMES, _NAME),
        (sayings.PRODUCTS, _NAME | _OWN),
        (sayings.UNSPACED_NAMES, _NAME | _UNSPACED),
        (sayings.NEUTRAL, _NEUTRAL),
        (sayings.UNSPACED_NEUTRAL, _NEUTRAL | _UNSPACED),
        (sayings.ENDINGS, _ENDING),
    ):
        for key in hash_column(normalise_column(pa.array(listed.split()))):
            at = _slot(words.keys, key)
            words.keys[at] = key
            words.bits[at] |= bits
    return words


@numba.njit(cache=True, inline="always")
def _slot(keys: U64, key: np.uint64) -> np.int64:
    """Return the place of a key, or of the empty slot where it belongs."""
    at = np.int64(key & np.uint64(_SLOTS - 1))
    while keys[at] != key and keys[at] != 0:
        at = (at + 1) & (_SLOTS - 1)
    return at


@numba.njit(cache=True, inline="always")
def _looked_up(words: _Words, data: U8, begin: int, end: int) -> np.uint8:
    """Return the bits of a word, 0 if it is none of ours."""
    return words.bits[_slot(words.keys, xxh64_slice(data, begin, end, np.uint64(0)))]


@numba.njit(cache=True, inline="always")
def _is_digit(byte: np.uint8) -> bool:
    return bool(48 <= byte <= 57)


@numba.njit(cache=True, inline="always")
def _has(data: U8, begin: int, end: int, byte: np.uint8) -> bool:
    for at in range(begin, end):  # noqa: SIM110 - numba inlines no generators
        if data[at] == byte:
            return True
    return False


@numba.njit(cache=True, inline="always")
def _ends_as_pictures_do(words: _Words, data: U8, begin: int, end: int) -> bool:
    """Return whether the text ends in a dot and the ending of a picture, of any case."""
    for at in range(end - 1, max(begin, end - _LONGEST_ENDING - 1), -1):
        if data[at] == _DOT:
            lower = np.empty(_LONGEST_ENDING, np.uint8)
            for i in range(end - at - 1):
                lower[i] = data[at + 1 + i] | 32
            return _looked_up(words, lower, 0, end - at - 1) & _ENDING != 0
    return False


@numba.njit(cache=True, inline="always")
def _is_year(data: U8, begin: int, end: int) -> bool:
    """Return whether a number is a year of 1800 to 2099."""
    if end - begin != 4:
        return False
    century = 10 * (int(data[begin]) - 48) + int(data[begin + 1]) - 48
    return 18 <= century <= 20


@numba.njit(cache=True)
def _changes(data: U8, begin: int, end: int) -> int:
    """Return how often a digit follows something else, or something else a digit."""
    changes = 0
    for at in range(begin + 1, end):
        changes += _is_digit(data[at]) != _is_digit(data[at - 1])
    return changes


@numba.njit(cache=True)
def _kind(
    words: _Words,
    data: U8,
    begin: int,
    end: int,
    spaced: bool,  # noqa: FBT001 - a kernel's argument
) -> tuple[np.uint8, int, bool]:
    """Return the bits of a token, its digits, and whether all of it is hexadecimal.

    Words with a number behind them are that word and a number: ``img1234``, ``final2``; but one
    letter is so only in a text of one word: ``Icon A5`` is an aeroplane. One letter and many digits
    are a camera's name: ``p1010023``. Pixels are a number: ``300x200``, ``80px``.
    """
    digits, first, hexadecimal, ascii_only = 0, end, True, True
    for at in range(begin, end):
        byte = data[at]
        if _is_digit(byte):
            digits += 1
            first = min(first, at)
        else:
            hexadecimal &= 97 <= byte <= 102
            ascii_only &= byte < 128
    size = end - begin
    if digits == size:
        return _NUMBER, digits, True
    if digits == 0:
        return _looked_up(words, data, begin, end), 0, hexadecimal
    if first > begin and digits == end - first:
        bits = _looked_up(words, data, begin, first)
        if first == begin + 1:
            alone = bits | _UNSPACED if bits != 0 else bits
            bits = _NAME if digits >= _LEAST_DIGITS else alone
        if bits != 0:
            return bits | _NUMBER, digits, hexadecimal
    if hexadecimal and size >= _LEAST_HASH and _changes(data, begin, end) > 1:
        return _HASH, digits, True
    mixed = ascii_only and size >= _LEAST_HASHES and min(digits, size - digits) >= 4
    if mixed and not spaced and _changes(data, begin, end) >= _LEAST_CHANGES:
        return _HASH, digits, False
    pixels = digits == size - 2 and data[end - 2] == _P and data[end - 1] == _X
    if first == begin and (pixels or (digits == size - 1 and _has(data, begin, end, _X))):
        return _NUMBER, digits, False
    return np.uint8(0), digits, hexadecimal


@numba.njit(cache=True, inline="always")
def _judge_tokens(words: _Words, data: U8, begin: int, end: int, spaced: bool) -> np.uint8:  # noqa: FBT001 - a kernel's argument
    """Return what a normalised text is, from its tokens alone.

    It goes on only as long as every token is one of ours, or hexadecimal: for most texts, that is
    the first one. ``bits`` are those of all tokens, ``last`` those of the last one. Texts that are
    ``spaced`` (or a hashtag) are somebody's writing: less is taken for a name there.
    """
    bits = last = np.uint8(0)
    digits = tokens = hex_digits = 0
    ours = hexadecimal = True
    year = False
    at = begin
    while at < end:
        stop = at
        while stop < end and data[stop] != _SPACE:
            stop += 1
        last, its_digits, is_hex = _kind(words, data, at, stop, spaced)
        ours &= last != 0 and not (spaced and last & _UNSPACED)
        hexadecimal &= is_hex and not spaced
        if not ours and not hexadecimal:
            return _KEPT
        year |= last == _NUMBER and _is_year(data, at, stop)
        bits |= last
        digits += its_digits
        hex_digits += stop - at
        tokens += 1
        at = stop + 1
    if hexadecimal and hex_digits >= _LEAST_HASHES and digits > 0:
        return _FILE_NAME
    if not ours:
        return _KEPT
    numbered = bits & (_NUMBER | _HASH) != 0
    if (last & _ENDING and tokens > 1) or bits & _HASH:
        return _FILE_NAME
    if spaced and bits & _OWN:
        of_year = year and digits <= _MOST_YEAR_DIGITS
        if of_year or (bits & _NAME and digits < _LEAST_OWN_DIGITS):
            return _KEPT
    if bits & _NAME and numbered:
        return _FILE_NAME
    if bits & _WORD:
        return _FILE_NAME if numbered and not spaced else _BOILERPLATE
    return _FILE_NAME if digits >= _LEAST_DIGITS and not spaced else _KEPT


@numba.njit(cache=True, nogil=True)
def _judge(raw: U8, raw_offsets: I64, data: U8, offsets: I64, words: _Words, out: U8) -> None:
    for i in range(out.size):
        begin, end = raw_offsets[i], raw_offsets[i + 1]
        spaced = _has(raw, begin, end, _SPACE)
        if not spaced and _ends_as_pictures_do(words, raw, begin, end):
            out[i] = _FILE_NAME
        else:
            spaced = spaced or _has(raw, begin, end, _HASHTAG)
            out[i] = _judge_tokens(words, data, offsets[i], offsets[i + 1], spaced)
